"""What Airflow knows of the package: provider, connection type, form, test button."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk._shared.secrets_masker import should_hide_value_for_key
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from airflow_aml_data import Workspace
from airflow_aml_data.errors import InvalidConfiguration, UnsupportedDatastore, WorkspaceNotFound
from airflow_aml_data.hooks.workspace import AmlWorkspaceHook
from airflow_aml_data.provider_info import get_provider_info

FIELDS = get_provider_info()["connection-types"][0]["conn-fields"]


def declare(
    monkeypatch: pytest.MonkeyPatch, name: str = "AZUREML_DEFAULT", conn_type: str = "azureml", **extra: object
) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({"conn_type": conn_type, "extra": extra}))


def test_airflow_lists_the_provider_and_its_connection_type() -> None:
    manager = ProvidersManager()

    assert "airflow-aml-data" in manager.providers
    hook = ProvidersManagerTaskRuntime().hooks["azureml"]
    assert hook is not None
    assert (hook.hook_class_name, hook.connection_id_attribute_name) == (
        "airflow_aml_data.hooks.workspace.AmlWorkspaceHook",
        "azureml_conn_id",
    )


def test_fields_that_hold_secrets_have_names_airflow_masks() -> None:
    secret = [name for name, field in FIELDS.items() if field["schema"].get("format") == "password"]

    assert secret == ["catalog_connection_string"]
    assert all(should_hide_value_for_key(name) for name in secret)


def test_the_test_button_says_what_works_without_any_connection(workspace: Workspace, tmp_path: Path) -> None:
    works, sentence = AmlWorkspaceHook().test_connection()

    assert works
    assert sentence.startswith(
        f"Works: workspaceblobstore (local folder {tmp_path}/airflow_home/azureml_workspace/datastores/"
    )
    assert "SQLite" in sentence


def test_the_test_button_says_what_does_not_work_and_what_does(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    stores = {
        "good": {"kind": "local", "root": str(tmp_path)},
        "bad": {"kind": "local", "root": str(tmp_path / "file")},
    }
    declare(monkeypatch, datastores=stores, catalog_connection_string="postgresql://me:hunter2@127.0.0.1:1/none")

    works, sentence = AmlWorkspaceHook().test_connection()

    assert not works
    assert "Works: good (local folder" in sentence
    assert "is not a folder" in sentence
    assert "127.0.0.1" in sentence.partition("Does not work")[2]
    assert "hunter2" not in sentence


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        (
            {"default_store": "x"},
            InvalidConfiguration,
            "unknown key 'default_store'. Allowed: datastores, default_datastore",
        ),
        ({"default_datastore": 5}, InvalidConfiguration, "'default_datastore' must be text, found int"),
        ({"default_datastore": "other"}, InvalidConfiguration, "not among its datastores: workspaceblobstore"),
        ({"datastores": "{"}, InvalidConfiguration, "'datastores' is not JSON"),
        ({"datastores": ["a"]}, InvalidConfiguration, "must map a name to its kind and options"),
        ({"datastores": {"a": {"root": "/x"}}}, InvalidConfiguration, "datastore 'a' lacks 'kind'"),
        ({"datastores": {"a": {"kind": "local"}}}, InvalidConfiguration, "lacks 'root'"),
        (
            {"datastores": {"a": {"kind": "local", "root": "x"}}},
            InvalidConfiguration,
            "'root' must be an absolute path",
        ),
        ({"datastores": {"a": {"kind": "local", "root": "/x", "z": 1}}}, InvalidConfiguration, "unknown key 'z'"),
        ({"datastores": {"a": {"kind": "s3"}}}, UnsupportedDatastore, "kind 's3', which this release does not offer"),
        (
            {"datastores": {"a": {"kind": "azure_data_lake_gen1"}}},
            UnsupportedDatastore,
            "retired .* Move the data to Gen2",
        ),
        ({"catalog_conn_id": "nowhere"}, InvalidConfiguration, "names 'nowhere', and there is no such connection"),
        ({"catalog_conn_id": "x", "catalog_connection_string": "y"}, InvalidConfiguration, "Keep one of them"),
    ],
)
def test_a_connection_that_cannot_work_gives_one_clear_error(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    extra: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    declare(monkeypatch, **extra)

    with pytest.raises(error, match=message):
        store = workspace.connect()
        store.storage(next(iter(store.config.datastores)))


def test_a_postgres_connection_can_hold_the_catalog(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, catalog_conn_id="pg")
    monkeypatch.setenv("AIRFLOW_CONN_PG", "postgres://me:p%40ss@db.example:5433/aml")

    config = workspace.connect().config

    assert config.catalog_connection_string == "postgresql://me:p%40ss@db.example:5433/aml"
    assert "p%40ss" not in repr(config)


def test_a_connection_of_another_type_or_none_at_all_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, name="OTHER", conn_type="http")

    with pytest.raises(InvalidConfiguration, match="is of type 'http'"):
        Workspace("other").connect()
    with pytest.raises(WorkspaceNotFound, match="There is no Airflow connection 'nobody'"):
        Workspace("nobody").connect()
