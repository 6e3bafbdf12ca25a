"""Steps whose datastore is a share of Azure Files."""

from __future__ import annotations

import pytest

from airflow_aml_data import OutputFileDatasetConfig
from airflow_aml_data.core import connections
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.errors import InvalidPath, OutputConflict, StepFailed
from tests.azure_files import AzureFiles
from tests.core.steps import READ, WRITE, Steps

UPLOADED = OutputFileDatasetConfig("out").as_upload()
MOUNTED = OutputFileDatasetConfig("out")

pytestmark = pytest.mark.slow


@pytest.fixture
def steps(steps: Steps, azure_files: AzureFiles, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """In a workspace whose default datastore is an empty share."""
    azure_files.create_share("files")
    workspace = {
        "datastores": {"share": {"kind": "azure_file", "file_share_name": "files", "conn_id": "my_share"}},
        "catalog_connection_string": steps.connected.config.catalog_connection_string,
    }
    connection = ConnectionFields(
        conn_id="my_share",
        conn_type="azure_fileshare",
        login=azure_files.account_url(),
        password=azure_files.keys["first"],
    )
    monkeypatch.setattr(connections, "source", lambda _: workspace)
    monkeypatch.setattr(connections, "reader", {"my_share": connection}.__getitem__)
    return steps


def stored(steps: Steps) -> dict[str, str]:
    store = steps.connected.storage(None)
    return {each.path: store.read_bytes(each.path).decode() for each in store.list_files("")}


def leftovers(steps: Steps, files: AzureFiles) -> list[str]:
    """What lies in the reserved folder and is no manifest of a committed output."""
    committed = {each.manifest_path for each in steps.connected.catalog.find_outputs(state="committed")}
    return [
        each.path
        for each in files.shares.share("first", "files").values()
        if each.content is not None and each.path.startswith(".aml_data/") and each.path not in committed
    ]


@pytest.mark.parametrize("output", [UPLOADED, MOUNTED], ids=["upload", "mount"])
@pytest.mark.parametrize("mode", ["as_mount", "as_download"])
def test_the_next_step_reads_what_the_first_wrote(steps, azure_files, output, mode):
    written = steps.write("a.txt", "deep/er/b.txt", output=output, task_id="one")
    assert stored(steps) == {
        f"{written.path}/a.txt": "new a.txt",
        f"{written.path}/deep/er/b.txt": "new deep/er/b.txt",
    }
    steps.run(READ, arguments=[getattr(written.as_dataset().as_named_input("data"), mode)()], task_id="two")
    printed = sorted(each for each in steps.lines if not each.startswith("Mounted inputs: 2 of 2 files were read"))
    assert printed == ["a.txt new a.txt", "deep/er/b.txt new deep/er/b.txt"]
    assert leftovers(steps, azure_files) == []


def test_a_step_that_fails_leaves_the_share_as_it_was(steps, azure_files):
    into_d = OutputFileDatasetConfig("out", destination=(None, "d")).as_upload()
    steps.write("a", output=into_d, task_id="one")
    before = stored(steps)
    with pytest.raises(StepFailed):
        steps.run(WRITE + "\n    sys.exit(3)", arguments=[into_d, "b"], task_id="two")
    with pytest.raises(OutputConflict):
        steps.write("a", "c", output=into_d, task_id="three")
    with pytest.raises(InvalidPath, match="':'"):
        steps.write("a.b", "c:d", output=UPLOADED, task_id="four")
    assert stored(steps) == before
    assert leftovers(steps, azure_files) == []
