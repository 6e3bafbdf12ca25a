"""No call reads a table from end to end, however many outputs there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, event, text

from airflow_aml_data.core.catalog import Catalog, NewDatasetVersion
from airflow_aml_data.core.catalog import schema as tables
from airflow_aml_data.errors import DatasetNotFound
from tests.catalog.conftest import make_committed, make_output, make_run

OUTPUTS = 30_000
START = datetime(2026, 1, 1, tzinfo=UTC)


# One thousand rows of each table; :first is the number of the first, :moment its time.
ROWS = (
    """
    INSERT INTO aml_outputs (id, dag_id, run_id, task_id, map_index, try_number, step_run_id, name, datastore,
                             path, mode, state, created_at)
    {numbers} SELECT 's' || n || '/prepared', 'dag' || (n % 50), 'run' || (n / 50 % 200),
                     'task' || (n % 7), n, 1,
                     's' || n, 'prepared', 'lake' || (n % 3), 'dataset/s' || n || '/prepared', 'upload',
                     CASE n % 100 WHEN 0 THEN 'writing' ELSE 'committed' END, :moment FROM numbers
    """,
    """
    INSERT INTO aml_leases (output_id, holder, kind, expires_at)
    {numbers} SELECT 's' || n || '/prepared', 'h' || (n / 3), 'read', :moment FROM numbers
    """,
    """
    INSERT INTO aml_datasets (name, latest, created_at)
    {numbers} SELECT 'd' || (n / 10), 10, :moment FROM numbers WHERE n % 10 = 0
    """,
    """
    INSERT INTO aml_dataset_versions (name, version, dataset_id, definition, description, tags, output_id,
                                      created_at)
    {numbers} SELECT 'd' || (n / 10), n % 10 + 1, 'i' || n, '{{}}', '', '{{}}', 's' || n || '/prepared', :moment
    FROM numbers
    """,
    """
    INSERT INTO aml_history (at, event, output_id, dataset, detail)
    {numbers} SELECT :moment, 'begun', 's' || n || '/prepared', 'd' || n, '' FROM numbers
    """,
)
NUMBERS = (
    "WITH RECURSIVE numbers(n) AS "
    "(SELECT CAST(:first AS INTEGER) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :first + 1000)"
)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def big_catalog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A catalog with tens of thousands of rows in each table; the tests of this module share it."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('big')}/catalog.db"
    catalog = Catalog(url)
    with catalog._database.writing() as connection:
        for first in range(0, OUTPUTS, 1000):
            values = {"first": first, "moment": START + timedelta(seconds=first)}
            for row in ROWS:
                statement = text(row.format(numbers=NUMBERS))
                connection.execute(statement.bindparams(bindparam("moment", type_=tables.UtcDateTime)), values)
    if request.param == "postgresql":  # where autovacuum does so; SQLite plans without statistics
        with catalog._database.writing() as connection:
            connection.execute(text("ANALYZE"))
    return catalog


@contextmanager
def explained() -> Iterator[list[tuple[str, str]]]:
    """Collects (statement, plan) of everything executed inside, each explained just before it runs."""
    plans: list[tuple[str, str]] = []
    kinds = ("SELECT", "INSERT", "UPDATE", "DELETE")

    def explain(connection, cursor, statement, parameters, context, executemany) -> None:
        if not statement.startswith(kinds) or "aml_" not in statement:
            return
        word = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        own = connection.connection.cursor()
        own.execute(f"{word} {statement}", _first(parameters))
        plans.append((statement, "\n".join(str(row[-1]) for row in own.fetchall())))
        own.close()

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


def _first(parameters: Any) -> Any:
    return parameters[0] if isinstance(parameters, list) else parameters


def scans(plans: list[tuple[str, str]]) -> list[str]:
    """Statements that read a table from end to end."""
    return [
        f"{statement}\n{plan}"
        for statement, plan in plans
        for line in plan.splitlines()
        if "Seq Scan on aml_" in line or line.startswith("SCAN aml_")
    ]


def test_a_steps_calls_use_indices(big_catalog):
    run, killed = make_run(try_number=2, unique="u2"), make_run()
    reader = make_run("train")
    dataset = NewDatasetVersion(name="d5", definition={}, output_id=f"{run.id}/prepared", producer=run)
    big_catalog.begin_outputs(killed, [make_output()], lease_seconds=60)

    with explained() as plans:
        big_catalog.begin_outputs(run, [make_output(), make_output("b", "b", "lake1")], lease_seconds=60)
        big_catalog.renew_leases(run, lease_seconds=60)
        big_catalog.commit_outputs(run, [make_committed()], [dataset])
        big_catalog.abandon_outputs(run, "cancelled")
        big_catalog.lease_outputs(reader, [f"{run.id}/prepared", "s1/prepared"], lease_seconds=60)
        big_catalog.release_leases(reader)
        big_catalog.get_output("s2/prepared")

    assert len(plans) > 25
    assert scans(plans) == []


def test_looking_for_datasets_uses_indices(big_catalog):
    with explained() as plans:
        big_catalog.register_dataset(NewDatasetVersion(name="d7", definition={}), create_new_version=True)
        big_catalog.get_dataset("d7")
        big_catalog.get_dataset("d7", 3)
        big_catalog.get_dataset_by_id("i7")
        big_catalog.list_dataset_versions("d7")
        big_catalog.update_dataset("d7", 3, description="new")
        big_catalog.unregister_all_versions("d8")
        with pytest.raises(DatasetNotFound):
            big_catalog.get_dataset("d7x")

    assert scans(plans) == []


@pytest.mark.parametrize(
    "known",
    [
        {"dag_id": "dag4"},
        {"dag_id": "dag4", "run_id": "run8"},
        {"dag_id": "dag4", "run_id": "run8", "task_id": "task3"},
        {"dag_id": "dag4", "task_id": "task3"},
        {"run_id": "run8"},
        {"task_id": "task3"},
        {"state": "writing"},
        {"state": "committed", "dag_id": "dag4"},
    ],
    ids=lambda known: "+".join(known),
)
def test_looking_for_outputs_uses_an_index(big_catalog_plans, known):
    assert scans(big_catalog_plans("find_outputs", **known)) == []


def test_the_history_of_one_thing_uses_an_index(big_catalog_plans):
    assert scans(big_catalog_plans("history", output_id="s3/prepared")) == []
    assert scans(big_catalog_plans("history", dataset="d3")) == []


def test_the_newest_are_read_from_the_end_of_an_index_and_not_sorted(big_catalog_plans):
    for plan in (big_catalog_plans("find_outputs"), big_catalog_plans("history")):
        ((_, found),) = plan
        assert "Seq Scan" not in found
        assert "USE TEMP B-TREE FOR ORDER BY" not in found


@pytest.fixture
def big_catalog_plans(big_catalog):
    def call(method: str, **known: Any) -> list[tuple[str, str]]:
        with explained() as plans:
            getattr(big_catalog, method)(**known)
        return plans

    return call
