"""What changes about registered datasets: descriptions, tags, ids, identical data, and names that are given up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from airflow_aml_data.core.catalog import Catalog, NewDatasetVersion
from airflow_aml_data.errors import DataChanged, DatasetExists, DatasetIdNotFound, DatasetNotFound, InvalidDeclaration
from tests.catalog import workers
from tests.catalog.conftest import make_committed, make_output, make_run, write_output


def make_dataset(name: str = "sales", **fields) -> NewDatasetVersion:
    return NewDatasetVersion(**{"name": name, "definition": {"paths": ["a/*.csv"]}} | fields)


def register(catalog: Catalog, name: str = "sales", **fields):
    return catalog.register_dataset(make_dataset(name, **fields), create_new_version=True)


def test_every_version_has_an_id_of_its_own_that_finds_it(fresh_catalog):
    made = [register(fresh_catalog, name) for name in ("sales", "sales", "stores")]

    assert len({each.dataset_id for each in made}) == 3
    assert [fresh_catalog.get_dataset_by_id(each.dataset_id) for each in made] == made
    with pytest.raises(DatasetIdNotFound, match='Cannot find dataset with id "0abc" in the workspace'):
        fresh_catalog.get_dataset_by_id("0abc")


def test_the_versions_of_a_name_are_listed_from_the_first(fresh_catalog):
    made = [register(fresh_catalog, name) for name in ("sales", "stores", "sales")]

    assert fresh_catalog.list_dataset_versions("sales") == [made[0], made[2]]
    with pytest.raises(DatasetNotFound, match="Did you mean 'sales'"):
        fresh_catalog.list_dataset_versions("saless")


class TestIdenticalData:
    def test_the_same_definition_and_content_is_no_new_version(self, fresh_catalog):
        first = register(fresh_catalog, content_digest="d1", definition={"paths": [["a", "b"]], "x": 1})

        again = register(fresh_catalog, content_digest="d1", definition={"x": 1, "paths": (("a", "b"),)})

        assert again == first
        assert fresh_catalog.list_dataset_versions("sales") == [first]
        assert [each.event for each in fresh_catalog.history(dataset="sales")] == ["registered"]

    @pytest.mark.parametrize(
        "other",
        [{"content_digest": "d2"}, {"content_digest": None}, {"content_digest": "d1", "definition": {"paths": ["b"]}}],
    )
    def test_anything_else_is_one(self, fresh_catalog, other):
        register(fresh_catalog, content_digest="d1")

        assert register(fresh_catalog, **other).version == 2

    def test_content_nobody_knows_equals_nothing(self, fresh_catalog):
        assert [register(fresh_catalog).version for _ in range(2)] == [1, 2]

    def test_only_the_latest_version_counts(self, fresh_catalog):
        digests = ("d1", "d2", "d1", "d1")

        assert [register(fresh_catalog, content_digest=each).version for each in digests] == [1, 2, 3, 3]

    def test_a_description_and_tags_given_replace_those_of_the_version(self, fresh_catalog):
        register(fresh_catalog, content_digest="d1", description="old", tags={"a": "1"})
        register(fresh_catalog, content_digest="d1", description="new")
        register(fresh_catalog, content_digest="d1", tags={"b": "2"})

        found = fresh_catalog.get_dataset("sales")

        assert (found.version, found.description, found.tags) == (1, "new", {"b": "2"})

    def test_without_create_new_version_the_name_is_taken_all_the_same(self, fresh_catalog):
        """Golden case G67."""
        register(fresh_catalog, content_digest="d1")

        with pytest.raises(DatasetExists, match="create_new_version=True"):
            fresh_catalog.register_dataset(make_dataset(content_digest="d1"), create_new_version=False)


class TestUpdate:
    @pytest.fixture
    def catalog(self, fresh_catalog):
        for _ in range(2):
            register(fresh_catalog, description="old", tags={"a": "1"})
        return fresh_catalog

    @pytest.mark.parametrize(
        ("change", "description", "tags"),
        [
            ({}, "old", {"a": "1"}),
            ({"description": "new"}, "new", {"a": "1"}),
            ({"description": ""}, "", {"a": "1"}),
            ({"tags": {"b": "2"}}, "old", {"b": "2"}),
            ({"tags": {}}, "old", {}),
            ({"description": "", "tags": {}}, "", {}),
        ],
    )
    def test_none_keeps_and_empty_clears(self, catalog, change, description, tags):
        changed = catalog.update_dataset("sales", 1, **change)

        assert (changed.description, changed.tags) == (description, tags)
        assert catalog.get_dataset("sales", 1) == changed
        other = catalog.get_dataset("sales", 2)
        assert (other.description, other.tags) == ("old", {"a": "1"})

    def test_the_latest_version_is_meant_where_none_is_named(self, catalog):
        assert catalog.update_dataset("sales", description="new").version == 2

    def test_the_history_says_what_became_of_what_and_nothing_of_nothing(self, catalog):
        catalog.update_dataset("sales", 1, description="new")
        catalog.update_dataset("sales", 1, description="new")
        catalog.remove_dataset_tags("sales", 1, ["unknown"])
        catalog.add_dataset_tags("sales", 1, {"b": "2"})

        assert [
            (each.version, each.detail) for each in catalog.history(dataset="sales") if each.event == "updated"
        ] == [
            (1, "Version 1 of dataset 'sales' updated: tags {'a': '1'} became {'a': '1', 'b': '2'}."),
            (1, "Version 1 of dataset 'sales' updated: description 'old' became 'new'."),
        ]

    def test_a_tag_with_another_value_is_refused_and_none_is_added(self, catalog):
        with pytest.raises(InvalidDeclaration, match=r"Tag 'a' of dataset 'sales' version 2 is '1' already.*'2'"):
            catalog.add_dataset_tags("sales", "latest", {"b": "2", "a": "2"})

        assert catalog.get_dataset("sales").tags == {"a": "1"}

    def test_the_same_tag_may_be_added_again(self, catalog):
        assert catalog.add_dataset_tags("sales", 1, {"a": "1", "b": "2"}).tags == {"a": "1", "b": "2"}

    def test_tags_are_removed_by_key(self, catalog):
        catalog.add_dataset_tags("sales", 1, {"b": "2", "c": "3"})

        assert catalog.remove_dataset_tags("sales", 1, ["a", "c", "unknown"]).tags == {"b": "2"}

    @pytest.mark.parametrize(("name", "version"), [("sales", 3), ("stores", None)])
    def test_what_is_not_there_cannot_be_changed(self, catalog, name, version):
        for change in (
            lambda: catalog.update_dataset(name, version, description="new"),
            lambda: catalog.add_dataset_tags(name, version, {"b": "2"}),
            lambda: catalog.remove_dataset_tags(name, version, ["a"]),
        ):
            with pytest.raises(DatasetNotFound, match=f'registered with name "{name}"'):
                change()

    def test_what_could_not_be_stored_changes_nothing(self, catalog):
        with pytest.raises(InvalidDeclaration, match="cannot be stored"):
            catalog.update_dataset("sales", description="\0", tags={})

        assert catalog.get_dataset("sales").tags == {"a": "1"}


class TestUnregister:
    def test_all_versions_go_and_the_name_is_free_again(self, fresh_catalog):
        gone = [register(fresh_catalog) for _ in range(2)]
        kept = register(fresh_catalog, "stores")

        fresh_catalog.unregister_all_versions("sales")

        assert fresh_catalog.list_datasets() == [kept]
        for version in (1, 2, None):
            with pytest.raises(DatasetNotFound):
                fresh_catalog.get_dataset("sales", version)
        with pytest.raises(DatasetIdNotFound):
            fresh_catalog.get_dataset_by_id(gone[0].dataset_id)
        with pytest.raises(DatasetNotFound):
            fresh_catalog.unregister_all_versions("sales")
        assert fresh_catalog.register_dataset(make_dataset(), create_new_version=False).version == 1

    def test_outputs_stay_as_they_are(self, fresh_catalog):
        output_id = write_output(fresh_catalog, make_run())
        register(fresh_catalog, output_id=output_id)

        fresh_catalog.unregister_all_versions("sales")

        assert fresh_catalog.get_output(output_id).state == "committed"
        assert register(fresh_catalog, output_id=output_id).version == 1

    def test_the_history_keeps_everything(self, fresh_catalog):
        output_id = write_output(fresh_catalog, make_run())
        register(fresh_catalog, output_id=output_id)
        register(fresh_catalog)
        fresh_catalog.unregister_all_versions("sales")
        register(fresh_catalog)

        assert [(each.event, each.version, each.output_id) for each in fresh_catalog.history(dataset="sales")] == [
            ("registered", 1, None),
            ("unregistered", 2, None),
            ("unregistered", 1, output_id),
            ("registered", 2, None),
            ("registered", 1, output_id),
        ]


def test_an_output_adds_a_version_each_time_although_its_content_is_the_same(fresh_catalog):
    """Golden case G66."""
    for number in (1, 2):
        run = make_run(run_id=f"manual__{number}")
        fresh_catalog.begin_outputs(run, [make_output(path=run.id)], lease_seconds=60)
        source = {"output": {"output_id": f"{run.id}/prepared"}}
        new = make_dataset(definition=source, content_digest="same", output_id=f"{run.id}/prepared", producer=run)
        (made,) = fresh_catalog.commit_outputs(run, [make_committed()], [new])

        assert made.version == number


def test_a_refused_registration_leaves_the_name_free(fresh_catalog):
    with pytest.raises(DataChanged):
        register(fresh_catalog, output_id="nobody/knows")

    assert register(fresh_catalog).version == 1


@pytest.mark.slow
def test_eight_processes_register_change_and_unregister_one_name_at_once(catalog_url, eight_processes):
    eight_processes(workers.register_change_and_unregister, catalog_url, 6)

    catalog = Catalog(catalog_url)
    entries = catalog.history(dataset="sales", limit=10_000)
    assert sum(each.event == "registered" for each in entries) == 8 * 6
    standing: set[int] = set()
    tags = 0
    for each in reversed(entries):  # the history, told again, is what the catalog holds
        if each.event == "registered":
            assert each.version == len(standing) + 1
            standing.add(each.version)
            tags = 0
        elif each.event == "updated":
            assert each.version in standing
            tags += each.version == len(standing)
        else:
            standing.remove(each.version)
    found = catalog.list_dataset_versions("sales") if standing else []
    assert [each.version for each in found] == sorted(standing)
    assert not found or len(found[-1].tags) == tags


NAMES = st.sampled_from(["a", "b"])
TAGS = st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2)


class Registrations(RuleBasedStateMachine):
    """Random calls on a catalog and on lists in memory, which must agree after each of them."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.catalog = Catalog(url)
        self.known: dict[str, list[dict]] = {}

    @rule(
        name=NAMES,
        path=st.sampled_from("pq"),
        digest=st.sampled_from(["d1", "d2", None]),
        tags=TAGS,
        new_version=st.booleans(),
    )
    def register(self, name, path, digest, tags, new_version):
        new = make_dataset(name, definition={"path": path}, content_digest=digest, tags=tags)
        versions = self.known.setdefault(name, [])
        if versions and not new_version:
            with pytest.raises(DatasetExists):
                self.catalog.register_dataset(new, create_new_version=False)
            return
        if versions and digest and (versions[-1]["path"], versions[-1]["digest"]) == (path, digest):
            versions[-1]["tags"] = tags or versions[-1]["tags"]
        else:
            versions.append({"path": path, "digest": digest, "description": "", "tags": tags})
        assert self.catalog.register_dataset(new, create_new_version=new_version).version == len(versions)

    @rule(name=NAMES, version=st.sampled_from([None, 1, 2]), description=st.sampled_from([None, "", "text"]), tags=TAGS)
    def update(self, name, version, description, tags):
        found = self._version(name, version, lambda: self.catalog.update_dataset(name, version, tags=tags))
        if found is None:
            return
        self.catalog.update_dataset(name, version, description=description, tags=tags)
        found["tags"] = tags
        found["description"] = found["description"] if description is None else description

    @rule(name=NAMES, version=st.sampled_from([None, 1, 2]), tags=TAGS)
    def add_tags(self, name, version, tags):
        found = self._version(name, version, lambda: self.catalog.add_dataset_tags(name, version, tags))
        if found is None:
            return
        if any(found["tags"].get(key, value) != value for key, value in tags.items()):
            with pytest.raises(InvalidDeclaration, match="already"):
                self.catalog.add_dataset_tags(name, version, tags)
            return
        self.catalog.add_dataset_tags(name, version, tags)
        found["tags"] = found["tags"] | tags

    @rule(name=NAMES, version=st.sampled_from([None, 1, 2]), keys=st.sets(st.sampled_from("xyz")))
    def remove_tags(self, name, version, keys):
        found = self._version(name, version, lambda: self.catalog.remove_dataset_tags(name, version, keys))
        if found is not None:
            self.catalog.remove_dataset_tags(name, version, keys)
            found["tags"] = {key: value for key, value in found["tags"].items() if key not in keys}

    @rule(name=NAMES)
    def unregister(self, name):
        if self.known.pop(name, None):
            self.catalog.unregister_all_versions(name)
        else:
            with pytest.raises(DatasetNotFound):
                self.catalog.unregister_all_versions(name)

    @invariant()
    def they_agree(self):
        latest = self.catalog.list_datasets()
        assert {each.name: each.version for each in latest} == {
            name: len(versions) for name, versions in self.known.items() if versions
        }
        for each in latest:
            rows = self.catalog.list_dataset_versions(each.name)
            assert rows[-1] == each
            assert [
                {
                    "path": row.definition["path"],
                    "digest": row.content_digest,
                    "description": row.description,
                    "tags": row.tags,
                }
                for row in rows
            ] == self.known[each.name]
            assert [self.catalog.get_dataset_by_id(row.dataset_id) for row in rows] == rows

    def _version(self, name: str, version: int | None, change: Callable[[], object]) -> dict | None:
        """The version in memory; when there is none, the change is refused."""
        versions = self.known.get(name, [])
        if 0 < (len(versions) if version is None else version) <= len(versions):
            return versions[-1 if version is None else version - 1]
        with pytest.raises(DatasetNotFound):
            change()
        return None


def test_any_sequence_of_calls_does_what_it_does_to_lists_in_memory(migrated_file: Path, tmp_path: Path):
    numbers = count()

    def machine() -> Registrations:
        file = tmp_path / f"{next(numbers)}.db"
        shutil.copy(migrated_file, file)
        return Registrations(f"sqlite:///{file}")

    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=15, deadline=None))
