"""Many processes at once, and a fork in between."""

from __future__ import annotations

import pytest

from airflow_aml_data.core.catalog import Catalog
from tests.catalog import workers

ROUNDS = 10


@pytest.mark.slow
def test_eight_processes_commit_and_register_at_once_without_losing_a_version(catalog_url, eight_processes):
    """They start on an empty database, so that they also race for the migration."""
    versions = eight_processes(workers.commit_and_register, catalog_url, ROUNDS)

    catalog = Catalog(catalog_url)
    assert sorted(version for given in versions for version in given) == list(range(1, 8 * ROUNDS + 1))
    assert all(given == sorted(given) for given in versions)
    assert catalog.get_dataset("sales").version == 8 * ROUNDS
    assert len(catalog.find_outputs(state="committed", limit=1000)) == 8 * ROUNDS
    assert len(catalog.history(limit=1000)) == 3 * 8 * ROUNDS


@pytest.mark.slow
def test_of_eight_that_claim_a_folder_or_one_inside_it_at_once_no_two_overlap(catalog_url, eight_processes):
    granted = eight_processes(workers.claim, catalog_url, [f"place{number}" for number in range(10)])

    for winners in zip(*granted, strict=True):
        # Either one got the folder, or one got the folder inside it: the others wanted the same two.
        assert sum(winners) == 1


@pytest.mark.slow
def test_a_catalog_in_use_survives_a_fork(catalog_url, eight_processes):
    Catalog(catalog_url).check()

    assert eight_processes(workers.register_before_and_after_a_fork, catalog_url) == [[1, 2, 3]] * 8
