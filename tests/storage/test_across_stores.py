"""Data of several stores in one dataset, one step and one copy."""

from __future__ import annotations

import pytest

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig
from airflow_aml_data.core import connections
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.errors import FilesExist
from tests.core.steps import READ, Steps

pytestmark = pytest.mark.slow


@pytest.fixture
def steps(steps: Steps, azurite, monkeypatch, tmp_path) -> Steps:
    """In a workspace with a folder and containers of two accounts."""
    stores = {"folder": {"kind": "local", "root": str(tmp_path / "folder")}}
    read = {}
    for account in ("first", "second"):
        azurite.create_container(tmp_path.name.replace("_", "-")[-60:].strip("-"), account)
        container = tmp_path.name.replace("_", "-")[-60:].strip("-")
        stores[account] = {"kind": "azure_blob", "container_name": container, "conn_id": account}
        stores[f"{account}_lake"] = {"kind": "azure_data_lake_gen2", "filesystem": container, "conn_id": account}
        extra = {"connection_string": azurite.connection_string(account)}
        read[account] = ConnectionFields(conn_id=account, conn_type="wasb", extra=extra)
    workspace = {
        "datastores": stores,
        "catalog_connection_string": steps.connected.config.catalog_connection_string,
    }
    monkeypatch.setattr(connections, "source", lambda _: workspace)
    monkeypatch.setattr(connections, "reader", read.__getitem__)
    return steps


def put(steps: Steps, store: str, path: str, text: str) -> tuple[Datastore, str]:
    steps.connected.storage(store).write_bytes(path, text.encode())
    return Datastore(steps.workspace, store), path


def test_a_table_and_files_of_several_stores(steps, tmp_path):
    paths = [put(steps, store, f"{store}.csv", f"a\n{store}\n") for store in ("folder", "first", "second")]
    frame = Dataset.Tabular.from_delimited_files(paths).to_pandas_dataframe()
    assert frame["a"].tolist() == ["folder", "first", "second"]
    Dataset.File.from_files(paths).download(tmp_path / "there")
    assert sorted(each.name for each in (tmp_path / "there").iterdir()) == ["first.csv", "folder.csv", "second.csv"]


@pytest.mark.parametrize("mode", ["as_mount", "as_download"])
def test_a_step_reads_from_one_account_and_writes_to_another(steps, mode):
    paths = [put(steps, store, f"{store}.csv", store) for store in ("folder", "first")]
    output = OutputFileDatasetConfig("out", ("second", "{run-id}")).as_upload()
    script = READ + '\n    open(sys.argv[2] + "/out.txt", "w").write("done")'
    raw = getattr(Dataset.File.from_files(paths).as_named_input("raw"), mode)()
    (made,) = steps.run(script, arguments=[raw, output]).outputs
    assert [each for each in sorted(steps.lines) if not each.startswith("Mounted")] == [
        "first.csv first",
        "folder.csv folder",
    ]
    assert steps.connected.storage("second").read_bytes(f"{made.path}/out.txt") == b"done"


@pytest.mark.parametrize("source", ["folder", "first", "second", "second_lake"])
@pytest.mark.parametrize("target", ["folder", "second"])
def test_copies_between_any_two_stores(steps, source, target):
    for name in ("a.txt", "b/c.txt", "other.csv"):
        put(steps, source, f"d/{name}", f"content of {name}")
    there = Datastore(steps.workspace, target)
    there.copy(Datastore(steps.workspace, source).path("d/**/*.txt"), "there")
    found = {each.path for each in steps.connected.storage(target).list_files("there")}
    assert found == {"there/a.txt", "there/b/c.txt"}
    assert steps.connected.storage(target).read_bytes("there/b/c.txt") == b"content of b/c.txt"
    with pytest.raises(FilesExist, match="there/"):
        there.copy(Datastore(steps.workspace, source).path("d"), "there")
    there.copy(Datastore(steps.workspace, source).path("d"), "there", overwrite=True)


def test_every_address_of_a_blob_is_the_path_on_its_datastore(steps, azurite):
    put(steps, "first", "d/a.csv", "a\n1\n")
    url = azurite.account_url("first")
    container = steps.connected.config.datastores["first"].options["container_name"]
    named = Dataset.Tabular.from_delimited_files((Datastore(steps.workspace, "first"), "d/a.csv"))
    for each in (f"{url}/{container}/d/a.csv", "azureml://datastores/first/paths/d/a.csv"):
        other = Dataset.Tabular.from_delimited_files(each)
        connected = steps.connected
        assert other.definition(connected, "r").id == named.definition(connected, "r").id
        assert other.to_pandas_dataframe()["a"].tolist() == [1]
