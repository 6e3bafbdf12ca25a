"""One blob has one identity, whichever scheme, host and spelling names it."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.configuration import WorkspaceConfig
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.definition import StorePath, WebPath
from airflow_aml_data.core.paths import declared_sources, settled_sources
from airflow_aml_data.core.storage.azure.addresses import azure_location, read_address
from airflow_aml_data.core.storage.base import DatastoreConfig
from airflow_aml_data.errors import InvalidDeclaration

HOST = "core.windows.net"
KEY = "c2VjcmV0IGtleQ=="


def store(name: str, kind: str = "azure_blob", conn_id: str | None = None, **options: str) -> DatastoreConfig:
    return DatastoreConfig(name=name, kind=kind, options=options | ({"conn_id": conn_id} if conn_id else {}))


STORES = [
    store("first", account_name="alpha", container_name="data"),
    store("again", "azure_data_lake_gen2", account_name="alpha", filesystem="data"),
    store("other", "azure_data_lake_gen2", account_name="beta", filesystem="data"),
    store("more", account_name="alpha", container_name="more"),
    store("share", "azure_file", account_name="alpha", file_share_name="data"),
    store("emulated", conn_id="azurite", container_name="data"),
    store("unreadable", conn_id="nobody", container_name="data"),
    DatastoreConfig(name="disk", kind="local", options={"root": "/data"}),
]
CONNECTION = ConnectionFields(
    conn_id="azurite",
    conn_type="wasb",
    extra={
        "connection_string": f"AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    },
)


def workspace() -> ConnectedWorkspace:
    return ConnectedWorkspace(
        WorkspaceConfig(
            name="conn",
            datastores={each.name: each for each in STORES},
            default_datastore="first",
            catalog_connection_string="sqlite:////nowhere/catalog.db",
            connections={"azurite": CONNECTION},
        )
    )


def settled(address: str) -> object:
    (found,) = settled_sources(workspace(), declared_sources(address))
    return found


PLACES = {
    "first": ("alpha", "data", "blob"),
    "other": ("beta", "data", "blob"),
    "more": ("alpha", "more", "blob"),
    "share": ("alpha", "data", "file"),
}
NAMES = st.text(string.ascii_letters + string.digits + " ._-%+=&äß€*#", min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..", ".aml_data")
)
BLOBS = st.tuples(st.sampled_from(sorted(PLACES)), st.lists(NAMES, min_size=1, max_size=3).map("/".join))


@st.composite
def spellings(draw: st.DrawFn, datastore: str, path: str) -> str:
    """One of the ways to name a blob."""
    account, container, service = PLACES[datastore]
    encoded = "".join(
        each
        if each == "/" or (each in string.ascii_letters and draw(st.booleans()))
        else quote(each, safe="")
        if each.isascii() is False or each in "%#? "
        else draw(st.sampled_from([each, f"%{ord(each):02x}", f"%{ord(each):02X}"]))
        for each in path
    ) + draw(st.sampled_from(["", "/"]))
    host = draw(st.sampled_from([service, "dfs" if service == "blob" else service]))
    full = draw(st.sampled_from([f"{account}.{host}.{HOST}", f"{account.upper()}.{host}.{HOST.title()}"]))
    schemes = ["https", "http"] + (["wasb", "wasbs", "abfs", "abfss", "ABFSS"] if service == "blob" else [])
    scheme = draw(st.sampled_from(schemes))
    port = draw(st.sampled_from(["", ":80" if scheme == "http" else ":443"]))
    if draw(st.booleans()):
        return f"azureml://datastores/{datastore}/paths/{encoded}"
    if scheme in ("http", "https"):
        return f"{scheme}://{full}{port}/{container}/{encoded}"
    return f"{scheme}://{container}@{full}{port}/{encoded}"


@given(st.data())
def test_every_spelling_of_a_blob_is_one_path_and_no_other_blob_has_it(data: st.DataObject):
    blobs = data.draw(st.lists(BLOBS, min_size=2, max_size=2, unique=True))
    found = []
    for datastore, path in blobs:
        paths = {settled(data.draw(spellings(datastore, path))) for _ in range(3)}
        assert paths == {StorePath(datastore, path)}
        found += paths
    assert len(set(found)) == 2


def test_an_emulator_has_the_account_in_the_path():
    address = "http://127.0.0.1:10000/devstoreaccount1/data/a/b.csv"
    assert settled(address) == StorePath("emulated", "a/b.csv")
    assert settled(address.replace("/data/", "/other/")) == WebPath(address.replace("/data/", "/other/"))
    assert settled("http://127.0.0.1:10001/devstoreaccount1/data/a") == WebPath(
        "http://127.0.0.1:10001/devstoreaccount1/data/a"
    )


@pytest.mark.parametrize(
    "address",
    [
        "https://gamma.blob.core.windows.net/data/a.csv",
        "https://alpha.blob.core.windows.net/unknown/a.csv",
        "https://alpha.blob.core.windows.net/data/a.csv?snapshot=2025-01-01T00:00:00Z",
        "https://example.com/data/a.csv",
        "https://example.com/a//b.csv",
        "https://alpha.blob.core.windows.net/",
    ],
)
def test_what_no_datastore_has_stays_a_public_address(address):
    assert settled(address) == WebPath(address)


@pytest.mark.parametrize("scheme", ["wasbs://data@alpha.blob", "https://alpha.blob"])
def test_globs_and_roots(scheme):
    root = f"{scheme}.{HOST}" + ("/data" if scheme.startswith("https") else "")
    assert settled(f"{root}/2025/**/*.csv") == StorePath("first", "2025/**/*.csv")
    assert settled(f"{root}/[ab].csv") == StorePath("first", "[ab].csv")
    assert {settled(root), settled(f"{root}/")} == {StorePath("first", "")}


@pytest.mark.parametrize("path", ["a//b", "/b", "a//"])
def test_a_blob_that_no_path_names_is_refused(path):
    with pytest.raises(InvalidDeclaration, match="empty name between two slashes"):
        settled(f"wasbs://data@alpha.blob.{HOST}/{path}")


def test_an_address_without_a_datastore_names_those_there_are():
    with pytest.raises(InvalidDeclaration) as refused:
        settled(f"abfss://data@gamma.dfs.{HOST}/a.csv")
    said = str(refused.value)
    for part in (
        "abfss://data@gamma",
        "other (https://beta.blob.core.windows.net/data)",
        "disk",
        "'conn'",
        "azure_blob",
    ):
        assert part in said
    assert KEY not in said


def test_the_first_declared_of_two_datastores_for_one_place_is_taken():
    assert azure_location(STORES[0]) == azure_location(STORES[1]) == f"https://alpha.blob.{HOST}/data"
    assert settled(f"abfss://data@alpha.dfs.{HOST}/x") == StorePath("first", "x")


def test_a_sovereign_cloud_is_another_place():
    here, there = (
        read_address(f"https://alpha.blob.core.{each}/data/x") for each in ("windows.net", "chinacloudapi.cn")
    )
    assert here and there
    assert here.location != there.location


def test_the_definition_is_the_same_whichever_scheme_names_the_file():
    from airflow_aml_data import Dataset

    ids = {
        Dataset.File.from_files(each).definition(workspace()).id
        for each in (
            f"wasbs://data@alpha.blob.{HOST}/a%20b.csv",
            f"https://alpha.dfs.{HOST}/data/a b.csv",
            "azureml://datastores/FIRST/paths/a%20b.csv",
        )
    }
    assert len(ids) == 1
