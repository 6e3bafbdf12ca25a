"""From a connection's extra, or config.json, to a workspace."""

from __future__ import annotations

import json

import pytest

from airflow_aml_data import Workspace
from airflow_aml_data.core import connections
from airflow_aml_data.core.configuration import WorkspaceConfig
from airflow_aml_data.core.connect import ConnectedWorkspace, connect
from airflow_aml_data.core.protocol import RunFile
from airflow_aml_data.core.storage import base
from airflow_aml_data.core.storage.base import DatastoreConfig, Kind, open_storage
from airflow_aml_data.errors import (
    DatastoreNotFound,
    InvalidConfiguration,
    MissingExtra,
    UnsupportedDatastore,
    WorkspaceNotFound,
)

IDENTITY = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
LOCAL = {"kind": "local", "root": "/data"}


def config(tmp_path, **extra):
    return WorkspaceConfig.from_mapping("conn", extra, tmp_path)


def test_an_empty_connection_is_the_embedded_workspace(tmp_path):
    made = config(tmp_path)
    assert made.default_datastore == "workspaceblobstore"
    assert made.catalog_connection_string == f"sqlite:///{tmp_path}/catalog.db"
    assert config(tmp_path, datastores="", default_datastore=None) == made


def test_a_configuration_survives_the_way_to_the_script(tmp_path):
    made = config(tmp_path, datastores={"A": LOCAL, "b": LOCAL}, default_datastore="b", **IDENTITY)
    assert config(tmp_path, **json.loads(json.dumps(made.to_mapping()))) == made


def test_datastores_may_be_json_text_as_the_form_stores_it(tmp_path):
    assert list(config(tmp_path, datastores=json.dumps({"a": LOCAL})).datastores) == ["a"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"default_store": "x"}, "unknown key 'default_store'. Allowed: datastores, default_datastore"),
        ({"default_datastore": 5}, "'default_datastore' must be text, found int"),
        ({"default_datastore": "x"}, "'x', which is not among"),
        ({"datastores": "{"}, "not JSON"),
        ({"datastores": []}, "must map a name|lacks"),
        ({"datastores": {"a": "local"}}, "must map a name"),
        ({"datastores": {"a": {"root": "/d"}}}, "'a' lacks 'kind'"),
        ({"datastores": {"a": {"kind": 5}}}, "'a' lacks 'kind'"),
        ({"datastores": {"a": {"kind": "local", "retention_days": "x"}}}, "retention_days of datastore 'a' is 'x'"),
        ({"datastores": {"a": {"kind": "local", "retention_days": 0}}}, "Allowed: a whole number of days, 1 and more"),
        ({"datastores": {"a": LOCAL, "A": LOCAL}}, "upper and lower case"),
    ],
)
def test_mistakes_are_named(tmp_path, extra, said):
    with pytest.raises(InvalidConfiguration, match=said):
        config(tmp_path, **extra)


@pytest.mark.parametrize("kind", ["AzureDataLake", "azure_data_lake_gen1", "adl"])
def test_gen1_is_refused_with_the_reason(tmp_path, kind):
    with pytest.raises(UnsupportedDatastore, match="retired on 29 February 2024"):
        config(tmp_path, datastores={"a": {"kind": kind}})


@pytest.mark.parametrize("kind", ["AzureSqlDatabase", "s3", ""])
def test_other_kinds_are_refused_and_the_known_ones_named(tmp_path, kind):
    """G22."""
    with pytest.raises(UnsupportedDatastore, match=r"Kinds: .*local"):
        config(tmp_path, datastores={"a": {"kind": kind}})


@pytest.mark.parametrize("module", ["no_such_module", "no_such_parent.child"])
def test_a_missing_extra_says_how_to_get_it(monkeypatch, module):
    monkeypatch.setitem(base.KINDS, "far", Kind("x:y", module, "azure"))
    with pytest.raises(MissingExtra, match=r"pip install \"airflow-aml-data\[azure\]\""):
        open_storage(DatastoreConfig(name="a", kind="far", options={}))


def test_secrets_are_in_no_repr_and_no_message(monkeypatch, tmp_path):
    monkeypatch.setitem(base.KINDS, "far", Kind("x:y"))
    url = "postgresql://user:hunter2@host/db"
    made = config(tmp_path, datastores={"a": {"kind": "far", "account_key": "hunter2"}}, catalog_connection_string=url)
    file = RunFile(
        id="i",
        dag_id="d",
        run_id="r",
        task_id="t",
        map_index=-1,
        try_number=1,
        conn_id="c",
        workspace=made.to_mapping(),
    )
    for each in (made, made.datastores, made.datastores["a"], ConnectedWorkspace(made), Workspace("c"), file):
        assert "hunter2" not in repr(each)
    with pytest.raises(InvalidConfiguration) as error:
        base.check_options(DatastoreConfig(name="a", kind="far", options={"key": "hunter2"}), {"key": int})
    assert "hunter2" not in str(error.value)


def test_datastore_names_do_not_care_about_case(tmp_path):
    connected = ConnectedWorkspace(config(tmp_path, datastores={"Main": LOCAL}))
    assert connected.datastore_name("MAIN") == connected.datastore_name(None) == "Main"
    with pytest.raises(DatastoreNotFound, match="Did you mean 'Main'"):
        connected.datastore_name("Mian")


def test_check_says_what_works_and_what_does_not(tmp_path):
    (tmp_path / "file").touch()
    stores = {
        "good": {"kind": "local", "root": str(tmp_path)},
        "bad": {"kind": "local", "root": str(tmp_path / "file")},
    }
    works, said = ConnectedWorkspace(config(tmp_path, datastores=stores)).check()
    assert not works
    assert "good (local folder" in said and "Does not work: " in said and "bad" in said


@pytest.fixture
def airflow_connections(monkeypatch):
    known: dict[str, dict] = {}
    monkeypatch.setattr(connections, "source", known.get)
    return known


def test_only_the_default_connection_may_be_missing(airflow_connections, workspace):
    assert connect().config.default_datastore == "workspaceblobstore"
    with pytest.raises(WorkspaceNotFound, match="'other'"):
        connect("other")


def test_nothing_is_read_before_the_workspace_is_used(airflow_connections):
    assert repr(Workspace.from_config("/no/such/place")) == "Workspace('azureml_default')"


class TestConfigJson:
    """v1's search: the file; or ``.azureml``, ``aml_config`` and the folder itself, then the parents'."""

    def write(self, folder, **changes):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**IDENTITY, **changes}))

    def test_the_search_order(self, airflow_connections, tmp_path):
        start = tmp_path / "a" / "b"
        start.mkdir(parents=True)
        places = [tmp_path, tmp_path / "a" / "aml_config", start, start / "aml_config", start / ".azureml"]
        for number, place in enumerate(places):
            self.write(place, workspace_name=f"w{number}")
            assert Workspace.from_config(str(start)).name == f"w{number}"
        assert Workspace.from_config(str(tmp_path / "config.json")).name == "w0"

    def test_absent(self, airflow_connections, tmp_path, monkeypatch):
        (tmp_path / "empty").mkdir()
        with pytest.raises(
            WorkspaceNotFound, match=r"config\.json, could not be found in .*empty or its parent directories"
        ):
            Workspace.from_config(str(tmp_path / "empty")).connect()
        monkeypatch.chdir(tmp_path)
        assert Workspace.from_config().connect()

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"{", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[]", "one JSON object"),
            (json.dumps({**IDENTITY, "extra": 1}).encode(), "unknown key 'extra'"),
            (json.dumps({**IDENTITY, "workspace_name": 5}).encode(), "'workspace_name' must be text"),
            (json.dumps({"workspace_name": "w"}).encode(), "'subscription_id' must be text"),
        ],
    )
    def test_mistakes(self, airflow_connections, tmp_path, content, said):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(InvalidConfiguration, match=said):
            Workspace.from_config(str(tmp_path)).connect()

    def test_it_may_not_contradict_the_connection(self, airflow_connections, tmp_path):
        self.write(tmp_path)
        airflow_connections["azureml_default"] = {"workspace_name": "another"}
        with pytest.raises(InvalidConfiguration, match="one workspace"):
            Workspace.from_config(str(tmp_path)).connect()
