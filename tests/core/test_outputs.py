"""Declared outputs, and references to committed ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_aml_data import Datastore, Workspace
from airflow_aml_data.core.outputs import OutputFileDatasetConfig, OutputReference
from airflow_aml_data.errors import InvalidDeclaration, InvalidPath

STORE = Datastore(Workspace("no_such_connection"), "store")
REFERENCE = OutputReference(
    name="out", conn_id="c", datastore="s", path="p", files=1, size_bytes=2, output_id="i", manifest="m",
    manifest_digest="d", dag_id="dag", run_id="r", task_id="t", map_index=-1, try_number=1,
)  # fmt: skip


def test_copies_leave_the_declaration_as_it_is():
    """G09, G10, and the registration survives every order."""
    out = OutputFileDatasetConfig("o")
    up = out.as_upload(True, "*.csv")
    assert (up.overwrite, up.source_globs, up.name) == (True, ("*.csv",), "o")
    assert up.as_mount() == out
    assert out.as_upload(source_globs=["a", "b"]).source_globs == ("a", "b")
    one = out.register_on_complete("n", tags={"k": "v"}).as_upload().as_mount()
    assert one == out.as_upload().register_on_complete("n", tags={"k": "v"}).as_mount()
    assert one.registration.name == "n"
    assert out == OutputFileDatasetConfig("o")
    assert out.as_input().mode == "mount"
    assert out.as_input("x").as_download().mode == "download"


@pytest.mark.parametrize(
    ("template", "path", "exclusive"),
    [
        ("mypath/{run-id}/{output-name}", "mypath/RUN/OUT", True),
        ("/a//b/", "a/b", False),
        ("x-{output-name}", "x-OUT", False),
        ("{{literal}}", "{{literal}}", False),
    ],
)
def test_destinations(template, path, exclusive):
    """G11, G12."""
    out = OutputFileDatasetConfig("o", destination=(STORE, template))
    assert out.path_for("RUN", "OUT") == path
    assert out.is_exclusive is exclusive


@pytest.mark.parametrize("destination", [(STORE,), (STORE, None), ("store",), (None, None)])
def test_a_destination_without_a_path_has_the_default_one(destination):
    assert OutputFileDatasetConfig("o", destination=destination).path_for("R", "O") == "dataset/R/O"


@pytest.mark.parametrize("template", ["{foo}", "a/{run-id}/{RUN-ID}", "{}", "../x", "a/../b", ".aml_data/x", "a\0"])
def test_unknown_placeholders_and_paths_that_leave_the_store_are_refused_at_once(template):
    """G13."""
    with pytest.raises(InvalidPath):
        OutputFileDatasetConfig("o", destination=(STORE, template))


@pytest.mark.parametrize("destination", [STORE, "store", (STORE, "a", "b"), (5, "a"), (), [STORE, "a"], (STORE, 5)])
def test_destinations_of_another_form_are_refused_at_once(destination):
    """G14."""
    with pytest.raises(InvalidDeclaration, match="destination"):
        OutputFileDatasetConfig("o", destination=destination)


def test_the_root_of_a_datastore_is_no_destination():
    with pytest.raises(InvalidPath, match="root"):
        OutputFileDatasetConfig("o", destination=(STORE, "/")).path_for("R", "O")


def test_a_reference_survives_json():
    for reference in (REFERENCE, replace(REFERENCE, dataset="n", dataset_version=3)):
        assert OutputReference.from_json(json.loads(json.dumps(reference.to_json()))) == reference


@pytest.mark.parametrize(
    "content",
    [
        {},
        None,
        "text",
        [1],
        REFERENCE.to_json() | {"aml_output_reference": 2},
        REFERENCE.to_json() | {"extra": 1},
        REFERENCE.to_json() | {"path": 5},
        REFERENCE.to_json() | {"files": True},
        {key: value for key, value in REFERENCE.to_json().items() if key != "path"},
    ],
)
def test_anything_else_is_no_reference(content):
    with pytest.raises(InvalidDeclaration, match="Not an output reference"):
        OutputReference.from_json(content)
