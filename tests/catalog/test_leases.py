"""Leases of readers."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, select

from airflow_aml_data.core.catalog.database import _checked
from airflow_aml_data.core.catalog.schema import leases
from airflow_aml_data.errors import DataChanged
from tests.catalog.conftest import make_output, make_run, write_output


@pytest.fixture
def leases_now(fresh_url):
    """Reads the table of leases: (output, holder, kind, end)."""
    engine = create_engine(_checked(fresh_url))

    def read():
        with engine.connect() as connection:
            rows = connection.execute(select(leases).order_by(leases.c.output_id, leases.c.holder))
            return [(row.output_id, row.holder, row.kind, row.expires_at) for row in rows]

    yield read
    engine.dispose()


def test_a_reader_takes_a_lease_and_is_noted_as_use(fresh_catalog, clock, leases_now):
    output_id = write_output(fresh_catalog, make_run())
    reader = make_run("train")
    clock.advance(5)

    fresh_catalog.lease_outputs(reader, [output_id, output_id], lease_seconds=0)

    assert leases_now() == [(output_id, reader.id, "read", clock())]
    assert fresh_catalog.get_output(output_id).used_at == clock()


def test_leasing_again_moves_the_end(fresh_catalog, clock, leases_now):
    output_id = write_output(fresh_catalog, make_run())
    reader = make_run("train")
    fresh_catalog.lease_outputs(reader, [output_id], lease_seconds=60)
    clock.advance(90)

    fresh_catalog.lease_outputs(reader, [output_id], lease_seconds=0)

    assert leases_now() == [(output_id, reader.id, "read", clock())]


def test_renewing_moves_the_runs_own_leases_only(fresh_catalog, clock, leases_now):
    output_id = write_output(fresh_catalog, make_run())
    mine, other = make_run("a"), make_run("b")
    started = clock()
    for reader in (mine, other):
        fresh_catalog.lease_outputs(reader, [output_id], lease_seconds=0)
    clock.advance(30)

    fresh_catalog.renew_leases(mine, lease_seconds=0)

    assert leases_now() == [(output_id, mine.id, "read", clock()), (output_id, other.id, "read", started)]


def test_releasing_ends_the_runs_own_leases_only_and_may_be_repeated(fresh_catalog, leases_now):
    output_id = write_output(fresh_catalog, make_run())
    mine, other = make_run("a"), make_run("b")
    for reader in (mine, other):
        fresh_catalog.lease_outputs(reader, [output_id], lease_seconds=60)

    fresh_catalog.release_leases(mine)
    fresh_catalog.release_leases(mine)

    assert [holder for _, holder, _, _ in leases_now()] == [other.id]


def test_committing_ends_the_write_lease_and_keeps_what_the_run_reads(fresh_catalog, leases_now):
    read = write_output(fresh_catalog, make_run())
    run = make_run("train")
    fresh_catalog.lease_outputs(run, [read], lease_seconds=60)

    write_output(fresh_catalog, run, make_output(path="model"))

    assert [(output_id, kind) for output_id, _, kind, _ in leases_now()] == [(read, "read")]


def test_only_committed_outputs_can_be_leased_and_each_other_one_is_named(fresh_catalog, leases_now):
    good = write_output(fresh_catalog, make_run())
    writing = make_run("slow")
    fresh_catalog.begin_outputs(writing, [make_output(path="slow")], lease_seconds=60)

    with pytest.raises(DataChanged) as refusal:
        fresh_catalog.lease_outputs(make_run("train"), [good, f"{writing.id}/prepared", "gone/x"], lease_seconds=60)

    assert f"'{writing.id}/prepared' (writing), 'gone/x' (not in the catalog)." in str(refusal.value)
    assert good not in str(refusal.value)
    assert [kind for _, _, kind, _ in leases_now()] == ["write"]


def test_a_reader_of_thousands_of_outputs_is_told_a_few_names(fresh_catalog):
    with pytest.raises(DataChanged, match="'gone/4' \\(not in the catalog\\) and 1995 more"):
        fresh_catalog.lease_outputs(make_run(), [f"gone/{n}" for n in range(2000)], lease_seconds=60)
