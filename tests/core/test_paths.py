"""Where datasets come from: lists and globs, v2's forms, files known for certain, what the paths say. Semantics sections 3, 4, 6."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from airflow_aml_data import DataPath, Dataset, Datastore, OutputFileDatasetConfig, Workspace
from airflow_aml_data.core import connections
from airflow_aml_data.core.factory import from_definition
from airflow_aml_data.core.files import table_files
from airflow_aml_data.errors import (
    DatasetNotFound,
    DatastoreNotFound,
    FilesExist,
    FilesNotFound,
    InvalidDeclaration,
    InvalidPath,
)

ANIMALS = ["animals/dog/1.jpg", "animals/dog/2.jpg", "animals/cat/1.jpg", "animals/cat/old/1.jpg", "other/1.jpg"]
LONG = "azureml://subscriptions/sub/resourcegroups/group/workspaces/ws/datastores/workspaceblobstore/paths/animals/dog"


@pytest.fixture
def animals(put):
    put({name: name for name in ANIMALS})


def copies(made, folder, **options):
    return [os.path.relpath(each, folder) for each in made.download(folder, **options)]


class TestLists:
    def test_g57_paths_are_whole_and_copies_keep_what_they_do_not_share(self, animals, datastore, tmp_path):
        """A8; semantics section 9: folders below the common prefix are kept, files that share a base name both kept."""
        made = Dataset.File.from_files(
            [
                DataPath(datastore, "animals/dog/1.jpg"),
                DataPath(datastore, "animals/dog/2.jpg"),
                DataPath(datastore, "animals/cat/*.jpg"),
            ]
        )
        assert made.to_path() == ["/animals/dog/1.jpg", "/animals/dog/2.jpg", "/animals/cat/1.jpg"]
        assert copies(made, tmp_path) == ["dog/1.jpg", "dog/2.jpg", "cat/1.jpg"]

    def test_a_step_finds_them_where_a_download_puts_them(self, steps, animals, datastore):
        made = Dataset.File.from_files([(datastore, "animals/dog"), (datastore, "animals/cat/*.jpg")])
        script = "import os, sys; assert open(sys.argv[1] + '/dog/2.jpg').read() and os.listdir(sys.argv[1] + '/cat')"
        for each in (made.as_mount(), made.as_download()):
            steps.run(script, arguments=[each])

    @pytest.mark.parametrize(
        ("paths", "found"),
        [
            (["animals/dog/1.jpg", "animals/dog/1.jpg"], ["1.jpg", "1.jpg"]),
            (["animals/cat", "animals/cat/old"], ["1.jpg", "old/1.jpg", "old/1.jpg"]),
            (["animals/cat", "other"], ["animals/cat/1.jpg", "animals/cat/old/1.jpg", "other/1.jpg"]),
            (["animals/cat/old/?.jpg", "animals/cat/old"], ["animals/cat/old/1.jpg"] * 2),
        ],
    )
    def test_the_common_folder_is_that_of_the_paths(self, animals, datastore, tmp_path, paths, found):
        made = Dataset.File.from_files([(datastore, each) for each in paths])
        assert copies(made, tmp_path) == found

    def test_a_question_mark_alone_gives_absolute_paths(self, animals, datastore):
        made = Dataset.File.from_files((datastore, "animals/dog/[12].jpg"))
        assert made.to_path() == ["/animals/dog/1.jpg", "/animals/dog/2.jpg"]

    def test_what_is_missing_is_left_out_only_when_asked(self, animals, datastore, tmp_path):
        """Semantics section 15: v1 takes False for True."""
        made = Dataset.File.from_files([(datastore, "gone"), (datastore, "other/*"), (datastore, "x*")])
        with pytest.raises(FilesNotFound, match="'gone'"):
            made.download(tmp_path / "to")
        assert not (tmp_path / "to").exists()
        assert copies(made, tmp_path, ignore_not_found=True) == ["1.jpg"]
        assert Dataset.File.from_files((datastore, "gone")).download(tmp_path, ignore_not_found=True) == []


class TestIsFile:
    def test_a_missing_file_is_an_error_when_it_is_read(self, animals, datastore, tmp_path):
        made = Dataset.File.from_files((datastore, "other/gone.jpg"), is_file=True)
        assert made.to_path() == ["/gone.jpg"]
        with pytest.raises(FilesNotFound, match=r"gone\.jpg"):
            made.download(tmp_path)
        assert made.download(tmp_path, ignore_not_found=True) == []

    def test_a_name_with_wildcards_is_a_name(self, put, datastore, tmp_path):
        put({"a*.jpg": "star", "ab.jpg": "other"})
        made = Dataset.File.from_files((datastore, "a*.jpg"), is_file=True)
        assert copies(made, tmp_path) == ["a*.jpg"]

    def test_a_script_gets_the_file(self, datastore, steps, put):
        put({"other/1.jpg": "here"})
        made = Dataset.File.from_files((datastore, "other/1.jpg"), is_file=True)
        made.register(steps.workspace, "certain")
        script = "import sys; assert open(sys.argv[1]).read() == 'here'"
        for each in (made, Dataset.get_by_name(steps.workspace, "certain")):
            steps.run(script, arguments=[each.as_mount()])

    def test_survives_the_way_to_a_script(self, datastore):
        made = Dataset.File.from_files([(datastore, "a"), (datastore, "b")], is_file=True)
        connected = datastore.workspace.connect()
        again = from_definition(datastore.workspace, made.definition(connected).to_json())
        assert again.definition(connected) == made.definition(connected)


class TestV2Forms:
    @pytest.mark.parametrize("path", ["animals/dog", "animals/d%6Fg/", "animals/dog/*.jpg", "animals/**/[12].jpg"])
    def test_a_path_on_a_datastore(self, animals, datastore, path):
        made = Dataset.File.from_files(f"azureml://datastores/workspaceblobstore/paths/{path}")
        assert made.workspace == Workspace()
        assert {each.rpartition("/")[2] for each in made.to_path()} == {"1.jpg", "2.jpg"}

    def test_the_root_of_a_datastore(self, animals):
        assert (
            "/animals/dog/1.jpg" in Dataset.File.from_files("azureml://datastores/workspaceblobstore/paths/").to_path()
        )

    def test_the_long_form_in_a_workspace_without_a_name(self, animals):
        assert Dataset.File.from_files(LONG).to_path() == ["/1.jpg", "/2.jpg"]

    @pytest.mark.parametrize(
        ("identity", "works"),
        [
            ({"subscription_id": "SUB", "workspace_name": "ws"}, True),
            ({"resource_group": "Group", "workspace_name": "ws"}, True),
            ({"workspace_name": "ws"}, True),
            ({"workspace_name": "another"}, False),
            ({"subscription_id": "another", "workspace_name": "ws"}, False),
        ],
    )
    def test_the_long_form_must_not_contradict_the_connection(self, animals, monkeypatch, identity, works):
        monkeypatch.setattr(connections, "source", lambda _: identity)
        made = Dataset.File.from_files(LONG)
        if works:
            assert made.to_path() == ["/1.jpg", "/2.jpg"]
        else:
            with pytest.raises(InvalidDeclaration, match="'another'"):
                made.to_path()

    def test_an_unknown_datastore_shows_on_use(self, workspace):
        made = Dataset.File.from_files("azureml://datastores/nowhere/paths/a")
        with pytest.raises(DatastoreNotFound, match="nowhere"):
            made.to_path()

    @pytest.mark.parametrize("version", [":1", ":2", "@latest", ":latest"])
    def test_a_registered_dataset(self, steps, animals, datastore, version):
        Dataset.File.from_files((datastore, "animals/cat")).register(steps.workspace, "animals")
        both = Dataset.File.from_files([(datastore, "animals/dog"), (datastore, "other")])
        both.register(steps.workspace, "animals", create_new_version=True)
        expected = ["/1.jpg", "/old/1.jpg"] if version == ":1" else both.to_path()
        assert Dataset.File.from_files(f"azureml:animals{version}").to_path() == expected

    def test_a_registered_table_or_choice_is_not_a_list_of_files(self, steps, animals, datastore):
        Dataset.File.from_files((datastore, "animals")).take(1).register(steps.workspace, "one")
        with pytest.raises(InvalidDeclaration, match="get_by_name"):
            Dataset.File.from_files("azureml:one:1").to_path()

    def test_an_unknown_dataset_shows_on_use(self, workspace):
        made = Dataset.Tabular.from_delimited_files("azureml:nothing:3")
        with pytest.raises(DatasetNotFound, match="nothing"):
            made.to_pandas_dataframe()

    def test_a_registered_output_keeps_its_manifest(self, steps):
        """Its lease is renewed, and a file that was changed behind its back is found."""
        output = OutputFileDatasetConfig("o").as_upload().register_on_complete("made")
        script = "import sys, os; os.makedirs(sys.argv[1], exist_ok=True); open(sys.argv[1] + '/a.csv', 'w').write('a\\n1\\n')"
        steps.run(script, arguments=[output])
        made = Dataset.Tabular.from_delimited_files("azureml:made:1")
        assert made.to_pandas_dataframe()["a"].tolist() == [1]
        assert list(made.definition(steps.workspace.connect()).outputs)

    @pytest.mark.parametrize(
        "path",
        [
            "azureml:",
            "azureml:name",
            "azureml:name:",
            "azureml:name:x",
            "azureml:name@newest",
            "azureml://datastores/a",
            "azureml://jobs/x/outputs/y",
            "azureml://subscriptions/s/datastores/d/paths/p",
        ],
    )
    def test_other_forms_are_refused_when_declared(self, path):
        with pytest.raises(InvalidDeclaration, match="azureml://datastores/NAME/paths/PATH"):
            Dataset.File.from_files(path)

    def test_a_path_that_climbs_out_is_refused_when_declared(self):
        for prefix in ("azureml://datastores/a/paths/", LONG):
            with pytest.raises(InvalidPath):
                Dataset.File.from_files(f"{prefix}/../x")


class TestWhatIsRefused:
    @pytest.mark.parametrize("scheme", ["wasb", "wasbs", "abfs", "abfss", "WASBS"])
    def test_addresses_of_azure_storage_that_no_datastore_has(self, workspace, scheme):
        made = Dataset.File.from_files(f"{scheme}://container@account.host/a.csv")
        with pytest.raises(InvalidDeclaration, match=r"account\.host/a\.csv.*: workspaceblobstore \(.*Declare one"):
            made.to_path()

    @pytest.mark.parametrize(
        ("address", "words"),
        [
            ("adl://store.azuredatalakestore.net/a.csv", "Move the data to Gen2"),
            ("wasbs://account.blob.core.windows.net/a.csv", "wasbs://CONTAINER@ACCOUNT"),
            ("wasbs://c@a.blob.core.windows.net/a.csv?sv=1&sig=hunter2", "followed by a SAS token"),
            ("abfss://c@a.dfs.core.windows.net/%ff.csv", "not UTF-8"),
            ("abfss://c@a.dfs.core.windows.net:port/a.csv", "not an address"),
        ],
    )
    def test_addresses_of_azure_storage_that_are_none(self, address, words):
        with pytest.raises(InvalidDeclaration, match=words) as refused:
            Dataset.File.from_files(address)
        assert "hunter2" not in str(refused.value)

    def test_public_addresses_mixed_with_datastores(self, datastore):
        for path in ([(datastore, "a"), "https://h/a"], ["https://h/a", "azureml:a:1"]):
            with pytest.raises(InvalidDeclaration, match=r"Invalid argument type for `path`.*do not mix"):
                Dataset.File.from_files(path)

    def test_paths_of_two_workspaces(self):
        with pytest.raises(InvalidDeclaration, match="cannot span workspaces"):
            Dataset.File.from_files([(Datastore(Workspace("other"), "a"), "b"), "azureml:a:1"])


class TestPartitions:
    @pytest.fixture
    def sales(self, put, datastore):
        names = ["north/2019/01", "north/2019/02", "south/2019/01", "south/2019/13", "odd"]
        put({f"sales/{name}/data.csv": f"n\n{place}\n" for place, name in enumerate(names)})
        return (datastore, "sales/**/*.csv")

    FORMAT = "/{region}/{month:yyyy/MM}/data.csv"

    def test_key_values_come_once_in_the_order_in_which_they_appear(self, sales):
        made = Dataset.File.from_files(sales, partition_format=self.FORMAT)
        assert made.partition_keys == ["region", "month"]
        assert made.get_partition_key_values(["region"]) == [{"region": "north"}, {"region": None}, {"region": "south"}]
        assert made.get_partition_key_values() == [
            {"region": "north", "month": datetime(2019, 1, 1)},
            {"region": "north", "month": datetime(2019, 2, 1)},
            {"region": None, "month": None},
            {"region": "south", "month": datetime(2019, 1, 1)},
            {"region": "south", "month": None},
        ]

    def test_also_of_a_registered_dataset_and_of_chosen_files(self, steps, sales):
        made = Dataset.File.from_files(sales, partition_format=self.FORMAT)
        made.register(steps.workspace, "sales")
        known = Dataset.get_by_name(steps.workspace, "sales")
        assert known.partition_keys == made.partition_keys
        assert known.take(2).get_partition_key_values(["region"]) == [{"region": "north"}]

    def test_wrong_keys_and_no_keys(self, sales):
        made = Dataset.File.from_files(sales, partition_format=self.FORMAT)
        with pytest.raises(InvalidDeclaration, match=r"\['zzz'\] are invalid partition keys"):
            made.get_partition_key_values(["region", "zzz"])
        plain = Dataset.File.from_files(sales)
        assert plain.partition_keys == []
        message = "cannot retrieve partition key values for a dataset that has no partition keys"
        with pytest.raises(InvalidDeclaration, match=message):
            plain.get_partition_key_values()

    def test_g61_a_bad_format_is_refused_when_declared(self, sales):
        calls = (
            lambda: Dataset.File.from_files(sales, partition_format="abc"),
            lambda: Dataset.Tabular.from_delimited_files(sales, partition_format="abc"),
            lambda: Dataset.Tabular.from_parquet_files(sales, partition_format="abc"),
            lambda: OutputFileDatasetConfig(partition_format="abc"),
            lambda: OutputFileDatasetConfig().read_parquet_files(partition_format="abc"),
        )
        for declare in calls:
            with pytest.raises(InvalidDeclaration, match="at least one"):
                declare()

    def test_tables_get_the_path_first_and_then_the_partitions(self, sales, datastore):
        made = Dataset.Tabular.from_delimited_files(sales, include_path=True, partition_format=self.FORMAT)
        connected = datastore.workspace.connect()
        with table_files(connected, made.definition(connected)) as found:
            assert found[0].columns == (
                ("Path", "/sales/north/2019/01/data.csv"),
                ("region", "north"),
                ("month", datetime(2019, 1, 1)),
            )

    def test_a_partition_named_like_the_path_column_is_refused(self, sales):
        with pytest.raises(InvalidDeclaration, match="Rename"):
            Dataset.Tabular.from_delimited_files(sales, include_path=True, partition_format="/{Path}.csv")

    def test_an_output_with_a_format(self, steps):
        output = (
            OutputFileDatasetConfig("o", partition_format="/{land}/x.csv").as_upload().register_on_complete("lands")
        )
        script = (
            "import sys, os; os.makedirs(sys.argv[1] + '/de'); open(sys.argv[1] + '/de/x.csv', 'w').write('a\\n1\\n')"
        )
        steps.run(script, arguments=[output])
        known = Dataset.get_by_name(steps.workspace, "lands")
        assert known.get_partition_key_values() == [{"land": "de"}]


class TestMount:
    def test_shows_the_files_and_goes_away(self, animals, datastore):
        with Dataset.File.from_files((datastore, "animals")).mount() as mounted:
            folder = Path(mounted.mount_point)
            found = sorted(each.name for each in folder.iterdir())
            content = (folder / "dog" / "1.jpg").read_text()
        assert (found, content) == (["cat", "dog"], "animals/dog/1.jpg")
        assert not folder.exists()

    def test_nothing_done_to_them_reaches_the_stored_files(self, animals, datastore, tmp_path):
        made = Dataset.File.from_files((datastore, "other"))
        with made.mount(tmp_path / "m") as mounted:
            file = Path(mounted.mount_point, "1.jpg")
            assert file.stat().st_mode & 0o222 == 0
            file.chmod(0o644)
            file.write_text("mine")
        (copy,) = made.download(tmp_path / "to")
        assert Path(copy).read_text() == "other/1.jpg"

    def test_an_empty_folder_is_given_back_empty(self, animals, datastore, tmp_path):
        (tmp_path / "m").mkdir()
        mounted = Dataset.File.from_files((datastore, "other")).mount(str(tmp_path / "m"))
        mounted.start()
        mounted.start()
        assert list((tmp_path / "m").iterdir()) == [tmp_path / "m" / "1.jpg"]
        mounted.stop()
        mounted.stop()
        assert list((tmp_path / "m").iterdir()) == []

    def test_a_folder_with_something_in_it_is_refused(self, animals, datastore, tmp_path):
        (tmp_path / "mine").write_text("x")
        message = "Dataset mount point must be empty, mounting dataset to non-empty folder is not supported."
        for place in (tmp_path, tmp_path / "mine"):
            with pytest.raises(FilesExist, match=message):
                Dataset.File.from_files((datastore, "other")).mount(place)
        assert (tmp_path / "mine").read_text() == "x"

    def test_missing_files_leave_nothing(self, datastore, tmp_path):
        mounted = Dataset.File.from_files((datastore, "gone"), is_file=True).mount(tmp_path / "m")
        with pytest.raises(FilesNotFound):
            mounted.start()
        assert not (tmp_path / "m").exists()
