"""G69 to G71: keeping and deleting data (the article, "Delete OutputFileDatasetConfig contents when no longer needed")."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from airflow_aml_data import Dataset, OutputFileDatasetConfig
from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.core.retention.account_policy import write_rule
from airflow_aml_data.core.step import run_step
from airflow_aml_data.errors import InvalidDeclaration
from tests.azure_management import airflow_workspace
from tests.core.steps import WRITE


@pytest.mark.parametrize("age_days", [29, 31])
def test_g69_data_of_any_age_is_kept_because_nothing_deletes_data_yet(age_days, steps, put):
    then = datetime.now(UTC) - timedelta(days=age_days)
    earlier = steps.connected
    earlier.catalog = Catalog(earlier.config.catalog_connection_string, now=lambda: then)
    declared = steps.declare(WRITE, arguments=[OutputFileDatasetConfig("out")], task_id="step1")
    made = run_step(earlier, declared, LocalCompute(), on_line=print, scratch_root=steps.scratch).outputs[0]
    put({"raw/b.txt": "old"})
    os.utime(steps.root / "raw" / "b.txt", (then.timestamp(), then.timestamp()))
    raw = Dataset.File.from_files((steps.workspace.get_default_datastore(), "raw")).as_mount()
    before = steps.stored()

    steps.run("import os, sys; print(*map(os.listdir, sys.argv[1:]))", arguments=[made, raw], task_id="step2")

    assert steps.lines == ["['a.txt'] ['b.txt']"]
    assert steps.stored() == before
    assert [(each.state, each.created_at) for each in steps.connected.catalog.find_outputs()] == [("committed", then)]


@pytest.mark.slow
def test_g70_a_lifecycle_rule_for_the_default_datastore_is_refused(steps, management, monkeypatch):
    """The article: lifecycle policies are for datastores that are not the default one."""
    for name, value in airflow_workspace().items():
        monkeypatch.setenv(name, value)
    connected = steps.workspace.connect()

    with pytest.raises(
        InvalidDeclaration,
        match="Datastore 'main' is the workspace's default one, where a lifecycle rule is not allowed",
    ):
        write_rule(connected, "main", is_dry_run=False)
    assert write_rule(connected, "scratch", is_dry_run=False).is_new
    assert [each["name"] for each in management.policies["first"]["rules"]] == ["airflow-aml-data-scratch"]


def test_g71_a_registered_output_of_a_step_that_runs_again_is_new_data_and_a_new_version(steps):
    """With reuse, which is not offered yet, v1 would write no new data."""
    output = OutputFileDatasetConfig("out").as_upload().register_on_complete("n")

    first, second = (steps.write("a.txt", output=output, run_id=run_id) for run_id in ("r1", "r2"))

    assert (first.dataset_version, second.dataset_version) == (1, 2)
    assert steps.stored() == {f"{each.path}/a.txt": "new a.txt" for each in (first, second)}
    assert first.path != second.path
    assert [Dataset.get_by_name(steps.workspace, "n", version).to_path() for version in (1, 2)] == [["/a.txt"]] * 2
