"""Registered datasets and their versions."""

from __future__ import annotations

import pytest

from airflow_aml_data.core.catalog import NewDatasetVersion
from airflow_aml_data.errors import (
    DataChanged,
    DatasetExists,
    DatasetNotFound,
    InvalidDeclaration,
    InvalidName,
)
from tests.catalog.conftest import make_output, make_run, write_output


def make_dataset(name: str = "sales", **fields) -> NewDatasetVersion:
    return NewDatasetVersion(**{"name": name, "definition": {"paths": ["a/*.csv"]}} | fields)


def test_versions_of_a_name_are_1_2_3_and_latest_is_the_last(fresh_catalog):
    """Golden case G66."""
    made = [fresh_catalog.register_dataset(make_dataset(), create_new_version=True) for _ in range(3)]

    assert [version.version for version in made] == [1, 2, 3]
    assert fresh_catalog.get_dataset("sales") == made[2]
    assert fresh_catalog.get_dataset("sales", None) == made[2]


def test_a_version_comes_back_as_it_was_registered(fresh_catalog, clock):
    run = make_run(map_index=3, try_number=2)
    output_id = write_output(fresh_catalog, run)
    new = make_dataset(
        "Verkäufe 'heute' \U0001f4c8",
        definition={"z": [1, 2.5, None, {"a": True}], "a": "\0\ud800"},
        description="two\nlines",
        tags={"owner": "Ünal"},
        output_id=output_id,
        producer=run,
    )

    fresh_catalog.register_dataset(new, create_new_version=False)

    got = fresh_catalog.get_dataset(new.name, 1)
    assert {name: getattr(got, name) for name in NewDatasetVersion.__dataclass_fields__} == {
        name: getattr(new, name) for name in NewDatasetVersion.__dataclass_fields__
    }
    assert list(got.definition) == ["z", "a"]
    assert (got.version, got.created_at) == (1, clock())


def test_a_known_name_needs_create_new_version(fresh_catalog):
    """Golden case G67."""
    fresh_catalog.register_dataset(make_dataset(), create_new_version=False)

    with pytest.raises(DatasetExists, match="create_new_version=True"):
        fresh_catalog.register_dataset(make_dataset(), create_new_version=False)

    assert fresh_catalog.get_dataset("sales").version == 1


@pytest.mark.parametrize("version", [1, "1", " 1 ", "01"])
def test_a_version_is_given_as_a_number_or_as_its_text(fresh_catalog, version):
    for _ in range(2):
        fresh_catalog.register_dataset(make_dataset(), create_new_version=True)

    assert fresh_catalog.get_dataset("sales", version).version == 1


@pytest.mark.parametrize("version", ["x", "1.0", "", 1.0, True, "newest", b"1"])
def test_any_other_version_is_refused_in_v1s_words(fresh_catalog, version):
    with pytest.raises(InvalidDeclaration) as refusal:
        fresh_catalog.get_dataset("sales", version)

    assert str(refusal.value) == (f'Invalid value {version} for version. Version value must be number or "latest".')


@pytest.mark.parametrize("version", [0, -1, 3, 2**40, "99999999999999999999"])
def test_a_version_nobody_registered_is_not_found(fresh_catalog, version):
    fresh_catalog.register_dataset(make_dataset(), create_new_version=True)

    with pytest.raises(DatasetNotFound, match=rf'"sales" \(version: {version}\)'):
        fresh_catalog.get_dataset("sales", version)


def test_an_unknown_name_is_answered_with_a_near_one_among_many(fresh_catalog):
    names = [*(f"a{number:03}" for number in range(120)), "sales"]
    fresh_catalog.commit_outputs(make_run(), [], [make_dataset(name) for name in names])

    with pytest.raises(DatasetNotFound, match="Did you mean 'sales'") as refusal:
        fresh_catalog.get_dataset("saless")

    assert len(refusal.value.known) <= 100


def test_datasets_are_listed_with_their_latest_version_by_name(fresh_catalog):
    for name in ("b", "a", "B", "b"):
        fresh_catalog.register_dataset(make_dataset(name), create_new_version=True)

    assert [(version.name, version.version) for version in fresh_catalog.list_datasets()] == [
        ("B", 1),
        ("a", 1),
        ("b", 2),
    ]


def test_a_dataset_cannot_read_an_output_that_is_still_being_written(fresh_catalog):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)

    with pytest.raises(DataChanged, match=r"\(writing\)"):
        fresh_catalog.register_dataset(make_dataset(output_id=f"{run.id}/prepared"), create_new_version=True)

    assert fresh_catalog.list_datasets() == []


def test_the_history_of_a_dataset_names_versions_outputs_and_producers(fresh_catalog):
    run = make_run()
    output_id = write_output(fresh_catalog, run)
    fresh_catalog.register_dataset(make_dataset(output_id=output_id, producer=run), create_new_version=True)
    fresh_catalog.register_dataset(make_dataset(), create_new_version=True)

    entries = fresh_catalog.history(dataset="sales")

    assert [(entry.event, entry.version, entry.output_id, entry.step_run_id) for entry in entries] == [
        ("registered", 2, None, None),
        ("registered", 1, output_id, run.id),
    ]


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"name": ""}, InvalidDeclaration, "The registration name of the dataset must not be empty."),
        ({"name": "n" * 256}, InvalidName, "has 256 characters; 255 are allowed"),
        ({"name": "a\0b"}, InvalidDeclaration, "cannot be stored"),
        ({"description": "\ud800"}, InvalidDeclaration, "cannot be stored"),
        (
            {"definition": {"when": object()}},
            InvalidDeclaration,
            "definition of dataset 'sales' must be plain JSON",
        ),
        ({"definition": {"x": float("nan")}}, InvalidDeclaration, "must be plain JSON"),
        ({"tags": {"x": {1}}}, InvalidDeclaration, "tags of dataset 'sales' must be plain JSON"),
    ],
)
def test_a_dataset_nobody_could_store_is_refused_when_it_is_made(fields, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        make_dataset(**fields)
