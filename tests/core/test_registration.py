"""Registration of datasets: versions, ids, what describes them, and giving a name up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, Workspace
from airflow_aml_data.errors import (
    DataChanged,
    DatasetExists,
    DatasetIdNotFound,
    DatasetNotFound,
    InvalidDeclaration,
    UserError,
)

NOWHERE = Workspace("no_such_connection")
UNREGISTERED = Dataset.File.from_files((Datastore(NOWHERE, "store"), "data"))


@pytest.fixture
def ws(steps):
    return steps.workspace


@pytest.fixture
def data(steps, put):
    """Two files, not registered yet."""
    put({"data/1": "one", "data/2": "two"})
    return Dataset.File.from_files((steps.workspace.get_default_datastore(), "data"))


class TestWhatARegisteredDatasetKnows:
    def test_everything_it_was_registered_with(self, ws, data):
        tags = {"owner": "ann"}

        made = data.register(ws, "sales", "all of it", tags)

        assert (made.name, made.version, made.description, made.tags) == ("sales", 1, "all of it", {"owner": "ann"})
        made.tags["owner"] = tags["owner"] = "bob"
        assert made.tags == {"owner": "ann"}

    def test_a_dataset_without_a_name_has_none_of_it(self):
        known = (UNREGISTERED.id, UNREGISTERED.name, UNREGISTERED.version, UNREGISTERED.description, UNREGISTERED.tags)

        assert known == (None, None, None, None, {})

    def test_what_is_made_of_a_registered_dataset_is_not_registered(self, ws, data):
        data.register(ws, "sales")
        sample = Dataset.get_by_name(ws, "sales").take_sample(0.5, seed=1)

        assert (sample.id, sample.name, sample.version) == (None, None, None)
        with pytest.raises(InvalidDeclaration, match="has not been registered"):
            sample.unregister_all_versions()
        assert sample.register(ws, "half").name == "half"
        assert Dataset.get_by_name(ws, "half").to_path() == sample.to_path()

    def test_latest_is_looked_up_each_time(self, ws, data):
        data.register(ws, "sales")
        latest = Dataset.get_by_name(ws, "sales")
        assert latest.version == 1

        data.take_sample(0.5, seed=1).register(ws, "sales", create_new_version=True)

        assert latest.version == 2
        assert Dataset.get_by_name(ws, "sales", "1").version == 1

    def test_its_id_finds_that_very_version(self, ws, data):
        made = [data.take_sample(0.5, seed=each).register(ws, "sales", create_new_version=True) for each in (1, 2)]

        assert [Dataset.get_by_id(ws, each.id).version for each in made] == [1, 2]
        assert Dataset.get_by_id(ws, made[0].id).to_path() == made[0].to_path()
        assert Dataset.get_by_id(ws, made[0].id).name == "sales"

    def test_its_id_is_what_a_script_gets_for_it_as_a_direct_input(self, ws, steps, data):
        made = data.register(ws, "sales")
        named = Dataset.get_by_name(ws, "sales").as_named_input("x")

        steps.run("import sys; print(sys.argv[1])", arguments=[named])

        assert steps.lines[-1] == made.id

    def test_all_datasets_by_name(self, ws, data):
        for name in ("b", "a"):
            data.register(ws, name)
        data.take_sample(0.5, seed=1).register(ws, "a", create_new_version=True)

        assert {name: each.version for name, each in Dataset.get_all(ws).items()} == {"a": 2, "b": 1}

    def test_declaring_one_reads_nothing(self):
        """G59."""
        made = [
            Dataset.get_by_id(NOWHERE, "0a"),
            Dataset.get_by_name(NOWHERE, "n"),
            Dataset.get_all(NOWHERE)["m"],
            Dataset.get_by_name(NOWHERE, "n").as_named_input("x").as_mount(),
        ]

        assert len({repr(each) for each in made}) == len(made)
        assert made[1].name == "n"


class TestVersions:
    def test_the_same_definition_and_files_make_no_new_version(self, ws, data):
        first = data.register(ws, "sales", description="old")

        again = data.register(ws, "sales", tags={"a": "1"}, create_new_version=True)

        assert (again.version, again.id, again.description, again.tags) == (1, first.id, "old", {"a": "1"})

    @pytest.mark.parametrize("change", [{"data/1": "ONE"}, {"data/3": ""}, {"data/1": "longer"}])
    def test_other_content_makes_one(self, ws, data, put, change):
        """v1 refused it: "An identical dataset had already been registered"."""
        data.register(ws, "sales")

        put(change)

        assert data.register(ws, "sales", create_new_version=True).version == 2

    def test_another_definition_makes_one(self, ws, data):
        data.register(ws, "sales")
        table = Dataset.Tabular.from_delimited_files((ws.get_default_datastore(), "data"))

        assert table.register(ws, "sales", create_new_version=True).version == 2
        assert data.register(ws, "sales", create_new_version=True).version == 3

    def test_files_may_come_later_and_until_then_nothing_is_known_of_them(self, ws, put):
        planned = Dataset.File.from_files((ws.get_default_datastore(), "planned"))
        versions = [planned.register(ws, "sales", create_new_version=True).version for _ in range(2)]
        put({"planned/1": ""})
        versions += [planned.register(ws, "sales", create_new_version=True).version for _ in range(2)]

        assert versions == [1, 2, 3, 3]

    def test_a_registered_dataset_registered_again_is_identical(self, ws, data):
        made = data.register(ws, "sales")

        assert made.register(ws, "sales", create_new_version=True).version == 1
        copy = made.register(ws, "copy")
        assert (copy.name, copy.version, copy.to_path()) == ("copy", 1, made.to_path())

    def test_g66_an_output_makes_one_each_time(self, ws, steps):
        out = OutputFileDatasetConfig("out").as_upload().register_on_complete("made")
        references = [steps.write("a.txt", output=out, run_id=each) for each in ("r1", "r2")]

        assert [each.dataset_version for each in references] == [1, 2]
        assert Dataset.get_by_name(ws, "made").version == 2
        assert references[1].as_dataset().register(ws, "made", create_new_version=True).version == 2
        assert references[0].as_dataset().register(ws, "made", create_new_version=True).version == 3

    def test_an_output_is_noted_as_what_the_version_reads(self, ws, steps):
        reference = steps.write("a.txt")

        reference.as_dataset().take_sample(1.0, seed=1).register(ws, "made")

        (entry, *_) = steps.connected.catalog.history(output_id=reference.output_id)
        assert (entry.event, entry.dataset, entry.version) == ("registered", "made", 1)

    def test_an_output_that_is_not_in_the_catalog_cannot_be_registered(self, ws, steps):
        source = steps.write("a.txt").as_dataset()
        with steps.connected.catalog._database.writing() as connection:
            connection.exec_driver_sql("UPDATE aml_outputs SET state = 'abandoned'")

        with pytest.raises(DataChanged, match="not committed"):
            source.register(ws, "made")

    def test_g67_a_known_name_is_an_error_in_v1s_words(self, ws, data):
        data.register(ws, "sales")

        with pytest.raises(DatasetExists) as refusal:
            data.register(ws, "sales")

        assert str(refusal.value) == (
            'There is already a dataset registered under name "sales". Specify `create_new_version=True` to register '
            "the dataset as a new version."
        )

    def test_every_version_stays_what_it_is(self, ws, data, put):
        put({"other/3": ""})
        data.register(ws, "sales")
        other = Dataset.File.from_files((ws.get_default_datastore(), "other"))
        other.register(ws, "sales", create_new_version=True)

        assert Dataset.get_by_name(ws, "sales").to_path() == ["/3"]
        assert Dataset.get_by_name(ws, "sales", None).to_path() == ["/3"]
        assert Dataset.get_by_name(ws, "sales", 1).to_path() == ["/1", "/2"]
        assert Dataset.get_by_name(ws, "sales", "1").to_path() == ["/1", "/2"]

    def test_a_registered_sample_is_the_same_for_everyone(self, ws, put):
        put({f"many/{number:03}": "" for number in range(50)})
        half = Dataset.File.from_files((ws.get_default_datastore(), "many")).random_split(0.5)[0]

        half.register(ws, "half")

        assert Dataset.get_by_name(ws, "half").to_path() == half.to_path()

    def test_create_new_version_of_a_new_name_is_version_1(self, ws, data):
        assert data.register(ws, "sales", create_new_version=True).version == 1

    def test_a_version_is_a_reference_not_a_copy(self, ws, data, put, tmp_path):
        data.register(ws, "sales")

        put({"data/1": "written over"})
        Dataset.get_by_name(ws, "sales", 1).download(tmp_path / "to")

        assert (tmp_path / "to" / "1").read_text() == "written over"

    def test_data_of_another_workspace_is_refused(self, ws, data):
        with pytest.raises(InvalidDeclaration, match=r"in workspace 'azureml_default', .* be registered in 'other'"):
            data.register(Workspace("other"), "sales")
        with pytest.raises(InvalidDeclaration, match="be registered in 'other'"):
            data.register(ws, "sales").register(Workspace("other"), "sales")


class TestChanges:
    @pytest.fixture
    def sales(self, ws, data):
        return data.register(ws, "sales", "old", {"a": "1"})

    def test_update_keeps_for_none_and_clears_for_empty(self, ws, sales):
        sales.update()
        assert (sales.description, sales.tags) == ("old", {"a": "1"})
        assert sales.update(description="new").description == "new"
        assert sales.update(tags={"b": "2"}).tags == {"b": "2"}
        sales.update("", {})
        found = Dataset.get_by_name(ws, "sales")
        assert (found.version, found.description, found.tags) == (1, "", {})

    def test_tags_are_added_and_removed(self, sales):
        assert sales.add_tags({"b": "2", "a": "1"}).tags == {"a": "1", "b": "2"}
        assert sales.remove_tags(["a", "unknown"]).tags == {"b": "2"}

    def test_a_tag_is_not_changed_by_adding_it(self, sales):
        with pytest.raises(InvalidDeclaration, match=r"Tag 'a' .* is '1' already, .* '2'"):
            sales.add_tags({"a": "2"})

    def test_the_latest_version_is_changed_where_none_is_named(self, ws, data, sales):
        data.take_sample(0.5, seed=1).register(ws, "sales", create_new_version=True)

        assert Dataset.get_by_name(ws, "sales").add_tags({"b": "2"}).version == 2

        assert sales.tags == {"a": "1"}

    @pytest.mark.parametrize("tags", ["ab", ["a"], {1: "x"}])
    def test_tags_are_a_dictionary(self, ws, data, sales, tags):
        for call in (
            lambda: data.register(ws, "other", tags=tags),
            lambda: sales.update(tags=tags),
            lambda: sales.add_tags(tags),
            lambda: OutputFileDatasetConfig("o").register_on_complete("n", tags=tags),
        ):
            with pytest.raises(InvalidDeclaration, match="dictionary of text to text"):
                call()
        assert list(ws.datasets) == ["sales"]

    @pytest.mark.parametrize("keys", ["a", 1])
    def test_keys_are_a_list(self, sales, keys):
        with pytest.raises(InvalidDeclaration, match="list of keys"):
            sales.remove_tags(keys)

    def test_unregistering_takes_all_versions_and_no_data(self, ws, data, sales):
        data.take_sample(0.5, seed=1).register(ws, "sales", create_new_version=True)
        gone = sales.id

        sales.unregister_all_versions()

        assert dict(ws.datasets) == {}
        for each in (sales, Dataset.get_by_name(ws, "sales")):
            with pytest.raises(DatasetNotFound, match=r'^Cannot find dataset registered with name "sales" \(version: '):
                each.to_path()
        with pytest.raises(DatasetIdNotFound, match="Cannot find dataset with id"):
            Dataset.get_by_id(ws, gone).to_path()
        assert data.to_path() == ["/1", "/2"]
        assert data.register(ws, "sales").version == 1

    @pytest.mark.parametrize(
        "call",
        [
            lambda dataset: dataset.update("x"),
            lambda dataset: dataset.add_tags({"a": "1"}),
            lambda dataset: dataset.remove_tags(["a"]),
            lambda dataset: dataset.unregister_all_versions(),
        ],
        ids=["update", "add_tags", "remove_tags", "unregister_all_versions"],
    )
    def test_a_dataset_without_a_name_raises(self, call):
        """v1 returned an exception object from the first three."""
        with pytest.raises(UserError, match="this one has not been registered"):
            call(UNREGISTERED)


class TestNames:
    @pytest.mark.parametrize("name", ["", None, " "])
    def test_g65_an_output_cannot_get_an_empty_one(self, name):
        with pytest.raises(InvalidDeclaration) as refusal:
            OutputFileDatasetConfig("o").register_on_complete(name)
        assert str(refusal.value) == "The registration name of the dataset must not be empty."

    @pytest.mark.parametrize("name", ["with space", "Verkäufe/2026", "a" * 255, "1"])
    def test_any_other_text_passes(self, ws, data, name):
        data.register(ws, name)
        assert Dataset.get_by_name(ws, name).to_path() == ["/1", "/2"]

    @pytest.mark.parametrize("version", ["x", 1.5, -1, "", True])
    def test_g68_a_version_is_a_number_or_latest(self, version):
        with pytest.raises(InvalidDeclaration) as refusal:
            Dataset.get_by_name(NOWHERE, "sales", version=version)
        assert str(refusal.value) == f'Invalid value {version} for version. Version value must be number or "latest".'

    @pytest.mark.parametrize("name", ["", " ", None])
    def test_a_dataset_cannot_get_an_empty_one(self, ws, data, name):
        with pytest.raises(InvalidDeclaration, match=r"^The registration name of the dataset must not be empty\.$"):
            data.register(ws, name)

    def test_a_description_is_text(self, ws, data):
        with pytest.raises(InvalidDeclaration, match="description of dataset 'sales' must be text, found 5"):
            data.register(ws, "sales", description=5)

    @pytest.mark.parametrize("version", [2, 0, 10**12])
    def test_an_unknown_version_is_an_error_on_use(self, ws, data, version):
        data.register(ws, "sales")

        with pytest.raises(DatasetNotFound, match=rf'"sales" \(version: {version}\)'):
            Dataset.get_by_name(ws, "sales", version).to_path()

    def test_an_unknown_name_is_an_error_on_use_in_v1s_words(self, ws, data):
        data.register(ws, "sales")
        unknown = Dataset.get_by_name(ws, "saless", version=3)

        with pytest.raises(DatasetNotFound) as refusal:
            unknown.to_path()

        assert str(refusal.value).startswith(
            "Cannot find dataset registered with name \"saless\" (version: 3) in the workspace. Did you mean 'sales'?"
        )

    @pytest.mark.parametrize("dataset_id", ["", None, 5])
    def test_an_id_is_text(self, dataset_id):
        with pytest.raises(InvalidDeclaration, match="id of a registered dataset"):
            Dataset.get_by_id(NOWHERE, dataset_id)


CALLS = {
    "as_mount": {},
    "as_upload": {"overwrite": True, "source_globs": "*.csv"},
    "read_delimited_files": {"separator": ";"},
    "read_parquet_files": {"include_path": True},
    "keep_columns": {"columns": ["a", "b"]},
    "drop_columns": {"columns": "b"},
    "random_split": {"percentage": 0.8, "seed": 1},
}
"""Calls that return the same output with more said about it, or such outputs; some exist on tables only."""
ANY_CALLS = st.lists(st.sampled_from(sorted(CALLS)), max_size=6)


def called(output, names):
    for each in names:
        if hasattr(output, each):
            made = getattr(output, each)(**CALLS[each])
            output = made[-1] if isinstance(made, tuple) else made
    return output


@given(before=ANY_CALLS, after=ANY_CALLS)
def test_the_registration_of_an_output_survives_any_order_of_calls(before, after):
    """Section 11; v1 lost it in three orders."""
    declared = OutputFileDatasetConfig("out")
    plain = called(declared, before)

    made = called(plain.register_on_complete("n", "d", {"k": "v"}), after)

    assert (made.registration.name, made.registration.description, made.registration.tags) == ("n", "d", {"k": "v"})
    assert made == called(declared, before + after).register_on_complete("n", "d", {"k": "v"})
    assert plain.registration is declared.registration is None
