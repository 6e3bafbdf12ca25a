"""G65 to G68: registered names and versions (semantics, section 11)."""

from __future__ import annotations

import pytest

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, Workspace
from airflow_aml_data.errors import DatasetExists, InvalidDeclaration

STORE = Datastore(Workspace(), "workspaceblobstore")


@pytest.mark.parametrize("name", ["", " ", None])
def test_g65_an_empty_registration_name_is_refused_when_it_is_declared(name, refusal):
    with pytest.raises(InvalidDeclaration) as refused:
        OutputFileDatasetConfig("out").register_on_complete(name)

    assert str(refused.value) == "The registration name of the dataset must not be empty."
    assert "The registration name of the dataset must not be empty." in refusal(f"a.register_on_complete({name!r})")


def test_g66_each_completed_step_adds_a_version_and_latest_is_the_last(steps):
    output = OutputFileDatasetConfig("out").as_upload().register_on_complete("n")

    made = [steps.write(f"{run_id}.txt", output=output, run_id=run_id) for run_id in ("r1", "r2")]

    assert [(each.dataset, each.dataset_version) for each in made] == [("n", 1), ("n", 2)]
    assert Dataset.get_by_name(steps.workspace, "n").to_path() == ["/r2.txt"]
    assert Dataset.get_by_name(steps.workspace, "n", version=1).to_path() == ["/r1.txt"]
    assert Dataset.get_by_name(steps.workspace, "n", version=2).to_path() == ["/r2.txt"]


def test_g67_a_taken_name_needs_create_new_version(steps, put):
    put({"one/1": "", "two/2": ""})
    one, two = (Dataset.File.from_files((STORE, each)) for each in ("one", "two"))
    one.register(steps.workspace, "n")

    with pytest.raises(DatasetExists) as refused:
        two.register(steps.workspace, "n")

    assert 'There is already a dataset registered under name "n"' in str(refused.value)
    assert "create_new_version=True" in str(refused.value)
    assert Dataset.get_by_name(steps.workspace, "n").to_path() == ["/1"]
    assert two.register(steps.workspace, "n", create_new_version=True).version == 2


def test_g68_a_version_that_is_no_number_is_refused_when_it_is_declared(refusal):
    said = 'Invalid value x for version. Version value must be number or "latest".'

    with pytest.raises(InvalidDeclaration) as refused:
        Dataset.get_by_name(Workspace("no_such_connection"), "n", version="x")

    assert str(refused.value) == said
    assert said in refusal("Dataset.get_by_name(Workspace(), 'n', version='x')")
