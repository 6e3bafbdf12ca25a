"""Datasets that are registered here are data assets of Azure ML, and its data assets are datasets here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_aml_data import DataPath, Dataset, Datastore, OutputFileDatasetConfig, Workspace
from airflow_aml_data.errors import (
    AzureMlRefused,
    DatasetExists,
    DatasetNotFound,
    InvalidDeclaration,
)
from airflow_aml_data.hooks.workspace import AmlWorkspaceHook
from tests.azure_ml import LONG, AzureMl
from tests.azure_ml.workspace.connected import connect
from tests.core.steps import READ, Steps

if TYPE_CHECKING:
    from azure.ai.ml.entities import Data

pytestmark = pytest.mark.slow

ROWS = "a,b\n1,x\n2,y\n"


@pytest.fixture
def store(azure_ml: AzureMl, connected: Workspace) -> Datastore:
    """A datastore that only Azure ML knows, with files in it."""
    azure_ml.add_blob_datastore("theirs", "second", "assets")
    opened = connected.connect().storage("theirs")
    for path in ("raw/one.csv", "raw/in/two.csv", "table/rows.csv", "single.csv"):
        opened.write_bytes(path, ROWS.encode())
    opened.write_bytes(
        "table/MLTable", b"paths:\n  - file: ./rows.csv\ntransformations:\n  - read_delimited\n  - take: 1\n"
    )
    return Datastore.get(connected, "theirs")


def asset(name: str, version: str | None = None) -> Data:
    """What Azure ML's own client says of a data asset."""
    data = AmlWorkspaceHook().get_ml_client().data
    return data.get(name, version) if version else data.get(name, label="latest")


@pytest.mark.parametrize("mode", ["as_download", "as_mount"])
def test_an_output_is_what_azure_ml_gives_and_an_asset_is_what_a_step_reads(
    azure_ml: AzureMl, store: Datastore, connected: Workspace, tmp_path: Path, mode: str
) -> None:
    """The check of the whole: a registered output is ``ml.data.get(name, label="latest")``; an asset is an input."""
    steps = Steps(connected, tmp_path)
    output = OutputFileDatasetConfig(
        name="processed", destination=(store, f"{mode}/{{run-id}}/{{output-name}}")
    ).as_upload()
    written = steps.write("a.txt", "in/b.txt", output=output.register_on_complete("processed_data", "made", {"k": "v"}))

    found = asset("processed_data")
    assert found.path == f"{LONG}datastores/theirs/paths/{written.path}/"
    assert (found.version, found.type, found.description, found.tags) == ("1", "uri_folder", "made", {"k": "v"})
    assert found.properties == {
        "airflow_aml_data.manifest_digest": written.manifest_digest,
        "airflow_aml_data.output_id": written.output_id,
        "airflow_aml_data.step_run": written.output_id.rpartition("/")[0],
    }

    azure_ml.add_data_asset("raw_data", "azureml://datastores/theirs/paths/raw/")
    raw = getattr(Dataset.get_by_name(connected, "raw_data").as_named_input("raw"), mode)()
    result = steps.run(READ, task_id="reader", arguments=[raw])

    assert sorted(each for each in steps.lines if each.strip() and "Mounted" not in each) == [
        "1,x",
        "1,x",
        "2,y",
        "2,y",
        "in/two.csv a,b",
        "one.csv a,b",
    ]
    assert result.outputs == []


def test_a_script_finds_what_only_azure_ml_knows(
    azure_ml: AzureMl, store: Datastore, connected: Workspace, tmp_path: Path
) -> None:
    azure_ml.add_data_asset("raw_data", "azureml://datastores/theirs/paths/raw/")
    script = """
        from azureml.core import Dataset, Run

        workspace = Run.get_context().experiment.workspace
        print(Dataset.get_by_name(workspace, "raw_data").to_path(), workspace.get_default_datastore().name)
    """
    steps = Steps(connected, tmp_path)
    steps.run(script)
    assert steps.lines[-1].strip() == "['/in/two.csv', '/one.csv'] workspaceblobstore"


@pytest.mark.parametrize("mode", ["as_upload", "as_mount"])
def test_each_run_of_a_step_makes_the_next_version(
    azure_ml: AzureMl, store: Datastore, connected: Workspace, tmp_path: Path, mode: str
) -> None:
    for _ in range(3):
        azure_ml.add_data_asset("processed_data", "azureml://datastores/theirs/paths/raw")  # by somebody else
    steps = Steps(connected, tmp_path)
    output = OutputFileDatasetConfig(name="o", destination=(store, "versions/{run-id}/{output-name}"))
    output = getattr(output, mode)().register_on_complete("processed_data")

    versions = [steps.write("a.txt", output=output, run_id=run).dataset_version for run in ("r1", "r2")]

    assert versions == [4, 5]
    assert asset("processed_data").version == "5"
    assert connected.datasets["processed_data"].version == 5


def test_registering_makes_an_asset_and_changes_of_tags_reach_it(
    azure_ml: AzureMl, store: Datastore, connected: Workspace
) -> None:
    made = Dataset.File.from_files(DataPath(store, "raw")).register(connected, "raw_data", "first", {"k": "v"})

    assert asset("raw_data").path == f"{LONG}datastores/theirs/paths/raw/"
    made.add_tags({"more": "1"}).remove_tags(["k"]).update(description="second")
    found = asset("raw_data", "1")
    assert (found.description, found.tags, found.properties) == ("second", {"more": "1"}, {})


def test_a_file_and_a_table_of_a_file_are_assets_of_that_file(
    azure_ml: AzureMl, store: Datastore, connected: Workspace
) -> None:
    Dataset.File.from_files(DataPath(store, "single.csv")).register(connected, "single")
    Dataset.Tabular.from_delimited_files(DataPath(store, "single.csv")).register(connected, "rows")

    assert [(asset(name).type, asset(name).path) for name in ("single", "rows")] == [
        ("uri_file", f"{LONG}datastores/theirs/paths/single.csv")
    ] * 2
    assert len(Dataset.get_by_name(connected, "rows").to_pandas_dataframe()) == 2, "the catalog knows how to read it"


def test_what_is_no_folder_or_file_stays_in_the_catalog_and_the_log_says_so(
    azure_ml: AzureMl,
    store: Datastore,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    (tmp_path / "here" / "x").mkdir(parents=True)
    (tmp_path / "here" / "x" / "a.csv").write_text(ROWS)
    workspace = connect(monkeypatch, datastores={"here": {"kind": "local", "root": str(tmp_path / "here")}})
    table = Dataset.Tabular.from_delimited_files(DataPath(store, "single.csv"))
    cases: dict[str, tuple[Any, str]] = {
        "list": (Dataset.File.from_files([DataPath(store, "raw"), DataPath(store, "single.csv")]), "it has 2 paths"),
        "glob": (Dataset.File.from_files(DataPath(store, "raw/*.csv")), "there is no folder or file 'raw/*.csv' on"),
        "nothing": (Dataset.File.from_files(DataPath(store, "later")), "there is no folder or file 'later' on"),
        "sample": (table.take_sample(0.5, seed=1), "it is a part of other data"),
        "made": (table.to_csv_files(), "it is a part of other data, or made of it"),
        "local": (
            Dataset.File.from_files(DataPath(Datastore(workspace, "here"), "x")),
            "cannot reach datastore 'here'",
        ),
        "a name with spaces": (table, "its name is none that Azure ML takes"),
    }
    for name, (dataset, why) in cases.items():
        caplog.clear()
        with caplog.at_level(logging.INFO, "airflow_aml_data"):
            assert dataset.register(workspace, name).version == 1
        assert f"Dataset {name!r} stays in the catalog, and is no data asset of 'team': " in caplog.text
        assert why in caplog.text
    assert azure_ml.data == {}


@pytest.mark.parametrize(
    "uri",
    [
        "azureml://datastores/theirs/paths/raw",
        "wasbs://assets@second.blob.core.windows.net/raw",
        "abfss://assets@second.dfs.core.windows.net/raw/",
        "https://second.blob.core.windows.net/assets/raw",
    ],
)
def test_a_folder_of_azure_ml_is_its_files(
    azure_ml: AzureMl, store: Datastore, connected: Workspace, uri: str, tmp_path: Path
) -> None:
    azure_ml.add_data_asset("raw_data", uri, tags={"k": "v"}, description="theirs")
    found = Dataset.get_by_name(connected, "raw_data")

    assert found.to_path() == ["/in/two.csv", "/one.csv"]
    assert (found.version, found.description, found.tags) == (1, "theirs", {"k": "v"})
    assert Dataset.File.from_files("azureml:raw_data:1").to_path() == ["/in/two.csv", "/one.csv"]
    assert Dataset.File.from_files("azureml:raw_data@latest").to_path() == ["/in/two.csv", "/one.csv"]
    assert len(found.download(tmp_path / "copy")) == 2


def test_a_file_of_azure_ml_is_that_file(azure_ml: AzureMl, store: Datastore, connected: Workspace) -> None:
    azure_ml.add_data_asset("single", f"{LONG}datastores/theirs/paths/single.csv", kind="uri_file")
    assert Dataset.get_by_name(connected, "single", 1).to_path() == ["/single.csv"]


def test_a_table_of_azure_ml_is_what_its_mltable_says(
    azure_ml: AzureMl, store: Datastore, connected: Workspace
) -> None:
    azure_ml.add_data_asset("table", "azureml://datastores/theirs/paths/table/", kind="mltable")
    assert Dataset.get_by_name(connected, "table").to_pandas_dataframe().to_dict("list") == {"a": [1], "b": ["x"]}
    with pytest.raises(InvalidDeclaration, match="'table' version 1 is more than a list of files"):
        Dataset.File.from_files("azureml:table:1").to_path()


def test_a_root_of_a_datastore_is_a_folder_too(azure_ml: AzureMl, store: Datastore, connected: Workspace) -> None:
    azure_ml.add_data_asset("all", "azureml://datastores/theirs/paths/")
    assert "/raw/one.csv" in Dataset.get_by_name(connected, "all").to_path()


def test_the_latest_version_is_the_newer_of_both(azure_ml: AzureMl, store: Datastore, connected: Workspace) -> None:
    Dataset.File.from_files(DataPath(store, "raw")).register(connected, "data")
    assert Dataset.get_by_name(connected, "data").version == 1
    azure_ml.add_data_asset("data", "azureml://datastores/theirs/paths/raw/in")

    assert Dataset.get_by_name(connected, "data").to_path() == ["/two.csv"]
    assert Dataset.get_by_name(connected, "data").version == 2
    assert Dataset.get_by_name(connected, "data", 1).to_path() == ["/in/two.csv", "/one.csv"]
    assert list(connected.datasets) == ["data"]


def test_versions_that_are_no_numbers_are_named(azure_ml: AzureMl, store: Datastore, connected: Workspace) -> None:
    for version in ("1", "foo"):
        azure_ml.add_data_asset("data", "azureml://datastores/theirs/paths/raw", version)
    with pytest.raises(
        InvalidDeclaration, match=r"latest version of data asset 'data' .* is 'foo'.* There are: foo, 1"
    ):
        Dataset.get_by_name(connected, "data").to_path()
    assert Dataset.get_by_name(connected, "data", 1).version == 1


@pytest.mark.parametrize("version", ["latest", 7])
def test_what_nobody_has_is_looked_for_in_both_places(
    azure_ml: AzureMl, store: Datastore, connected: Workspace, version: int | str
) -> None:
    Dataset.File.from_files(DataPath(store, "raw")).register(connected, "mine")
    with pytest.raises(
        DatasetNotFound,
        match=r"\"mina\" \(version: .*nor a data asset in Azure ML workspace 'team'\. Did you mean 'mine'",
    ):
        Dataset.get_by_name(connected, "mina", version).to_path()


def test_a_name_that_azure_ml_has_is_taken(azure_ml: AzureMl, store: Datastore, connected: Workspace) -> None:
    azure_ml.add_data_asset("data", "azureml://datastores/theirs/paths/raw")
    dataset = Dataset.File.from_files(DataPath(store, "raw"))
    with pytest.raises(DatasetExists, match='already a dataset registered under name "data"'):
        dataset.register(connected, "data")
    assert dataset.register(connected, "data", create_new_version=True).version == 2


def test_a_version_that_azure_ml_has_of_other_data_is_an_error(
    azure_ml: AzureMl, store: Datastore, connected: Workspace
) -> None:
    made = Dataset.File.from_files(DataPath(store, "raw")).register(connected, "data")
    azure_ml.data["data"]["1"]["dataUri"] = f"{LONG}datastores/theirs/paths/elsewhere/"
    with pytest.raises(
        InvalidDeclaration, match=r"Version 1 of dataset 'data' cannot be a data asset .* another path has that"
    ):
        made.add_tags({"k": "v"})


def test_a_name_of_another_type_is_refused_before_anything_is_registered(
    azure_ml: AzureMl, store: Datastore, connected: Workspace
) -> None:
    azure_ml.add_data_asset("data", "azureml://datastores/theirs/paths/single.csv", kind="uri_file")
    with pytest.raises(
        InvalidDeclaration, match=r"is a uri_folder, and all versions of data asset 'data' .* 'uri_file'"
    ):
        Dataset.File.from_files(DataPath(store, "raw")).register(connected, "data", create_new_version=True)
    assert connected.connect().catalog.list_datasets() == []


def test_unregistering_archives_and_registering_again_shows_the_next_version(
    azure_ml: AzureMl, store: Datastore, connected: Workspace
) -> None:
    dataset = Dataset.File.from_files(DataPath(store, "raw"))
    dataset.register(connected, "data").unregister_all_versions()

    assert azure_ml.containers["data", "data"]["isArchived"]
    assert "data" not in connected.datasets
    with pytest.raises(DatasetNotFound):
        Dataset.get_by_name(connected, "data").to_path()
    assert dataset.register(connected, "data").version == 2
    assert "data" in connected.datasets
    assert asset("data").version == "2"


def test_an_asset_of_azure_ml_alone_is_not_changed_here(
    azure_ml: AzureMl, store: Datastore, connected: Workspace
) -> None:
    azure_ml.add_data_asset("data", "azureml://datastores/theirs/paths/raw")
    for change in (lambda each: each.update("x"), lambda each: each.unregister_all_versions()):
        with pytest.raises(
            InvalidDeclaration, match="version 1 of 'data' is a data asset of Azure ML workspace 'team' alone"
        ):
            change(Dataset.get_by_name(connected, "data"))


def test_an_asset_in_another_workspace_is_refused(azure_ml: AzureMl, store: Datastore, connected: Workspace) -> None:
    azure_ml.add_data_asset("data", f"{LONG.replace('/team/', '/other/')}datastores/theirs/paths/raw")
    with pytest.raises(
        InvalidDeclaration, match="names workspace_name 'other', and connection 'azureml_default' is of 'team'"
    ):
        Dataset.get_by_name(connected, "data").to_path()


def test_a_missing_role_fails_a_registration_before_the_catalog_has_it(
    azure_ml: AzureMl, store: Datastore, connected: Workspace
) -> None:
    azure_ml.may.remove("data/read")
    with pytest.raises(AzureMlRefused, match=r"no permission to read '/data/data'.*AzureML Data Scientist"):
        Dataset.File.from_files(DataPath(store, "raw")).register(connected, "data")
    assert connected.connect().catalog.list_datasets() == []
