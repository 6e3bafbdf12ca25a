"""Registered datastores in the catalog: one of a name, one default, none forgotten that holds data."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_aml_data.core.catalog import Catalog, NewDatasetVersion, RegisteredDatastore
from airflow_aml_data.errors import DatastoreInUse, DatastoreNotFound, InvalidDeclaration
from tests.catalog.conftest import make_output, make_run, write_output


def lake(container: str = "data", name: str = "lake", **options: str) -> RegisteredDatastore:
    options |= {"container_name": container, "account_name": "account"}
    return RegisteredDatastore(name=name, kind="azure_blob", options=options, changed_by="ada")


def known(catalog: Catalog) -> list[tuple[Any, ...]]:
    return [
        (each.name, each.kind, each.options["container_name"], each.is_default) for each in catalog.list_datastores()
    ]


def test_a_name_is_one_whatever_its_case(fresh_catalog):
    fresh_catalog.register_datastore(lake(), overwrite=False)
    with pytest.raises(InvalidDeclaration, match=r"already exists: 'lake' is azure_blob \(account_name=account"):
        fresh_catalog.register_datastore(lake("other", "LAKE"), overwrite=False)
    fresh_catalog.register_datastore(lake("other", "LAKE"), overwrite=True)
    assert known(fresh_catalog) == [("lake", "azure_blob", "other", False)]
    fresh_catalog.unregister_datastore("Lake", by="ada")
    assert known(fresh_catalog) == []
    with pytest.raises(DatastoreNotFound):
        fresh_catalog.unregister_datastore("lake", by="ada")
    events = [(each.event, each.detail.partition(" by ")[0]) for each in fresh_catalog.history()]
    assert events == [
        ("unregistered", "Datastore 'lake' was unregistered"),
        ("updated", "Datastore 'lake' was changed"),
        ("registered", "Datastore 'lake' was registered"),
    ]


def test_one_is_the_default_registered_or_not(fresh_catalog):
    for name in ("lake", "sea"):
        fresh_catalog.register_datastore(lake(name=name), overwrite=False)
    for chosen in ("lake", "declared", "SEA", "other", "lake"):
        fresh_catalog.set_default_datastore(chosen, by="ada")
        assert [each.name.lower() for each in fresh_catalog.list_datastores() if each.is_default] == [chosen.lower()]
    assert [each[0] for each in known(fresh_catalog)] == ["lake", "sea"]
    with pytest.raises(DatastoreInUse, match="set_default_datastore"):
        fresh_catalog.unregister_datastore("lake", by="ada")
    fresh_catalog.register_datastore(lake("other"), overwrite=True)
    assert known(fresh_catalog)[0] == ("lake", "azure_blob", "other", True)


def test_outputs_keep_the_datastore_they_lie_on(fresh_catalog):
    fresh_catalog.register_datastore(lake(), overwrite=False)
    written = write_output(fresh_catalog, make_run())
    with pytest.raises(DatastoreInUse, match=f"cannot be unregistered: output '{written}'"):
        fresh_catalog.unregister_datastore("lake", by="ada")
    with pytest.raises(DatastoreInUse, match=r"cannot become azure_blob .*container_name=other"):
        fresh_catalog.register_datastore(lake("other"), overwrite=True)
    fresh_catalog.register_datastore(lake(conn_id="mine"), overwrite=True)  # the same place
    assert fresh_catalog.list_datastores()[0].options["conn_id"] == "mine"


def test_what_was_abandoned_keeps_nothing(fresh_catalog):
    fresh_catalog.register_datastore(lake(), overwrite=False)
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)
    with pytest.raises(DatastoreInUse):
        fresh_catalog.unregister_datastore("lake", by="ada")
    fresh_catalog.abandon_outputs(run, "gave up")
    fresh_catalog.unregister_datastore("lake", by="ada")
    assert known(fresh_catalog) == []


def test_registered_datasets_keep_it_also_below_a_table_made_into_files(fresh_catalog):
    fresh_catalog.register_datastore(lake(), overwrite=False)
    source = {"sources": [{"datastore": "lake", "path": "a.csv", "is_file": False}], "made_of": None}
    made = {"sources": [], "made_of": {"table": source, "target": {}}}
    for name, definition in (("numbers", source), ("files", made)):
        fresh_catalog.register_dataset(NewDatasetVersion(name=name, definition=definition), create_new_version=False)
        with pytest.raises(DatastoreInUse, match=f"dataset '{name}' version 1"):
            fresh_catalog.unregister_datastore("lake", by="ada")
        fresh_catalog.unregister_all_versions(name)
    fresh_catalog.unregister_datastore("lake", by="ada")
    assert known(fresh_catalog) == []
