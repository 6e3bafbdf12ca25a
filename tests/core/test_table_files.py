"""Tables as files: ``to_csv_files``, ``to_parquet_files``, and what goes into a store from memory."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from airflow_aml_data import Dataset
from airflow_aml_data.core.definition import Definition
from airflow_aml_data.core.factory import from_definition
from airflow_aml_data.core.files import find_files
from airflow_aml_data.core.tabular import write
from airflow_aml_data.core.transfer import download
from airflow_aml_data.errors import FilesExist, FilesNotFound, InvalidDeclaration


@pytest.fixture
def table(datastore, put):
    put({"t/1.csv": "a,b\n1,x\n2,y\n", "t/2.csv": "a,b\n3,z\n4,\n"})
    return Dataset.Tabular.from_delimited_files((datastore, "t"))


def contents(files, folder):
    return " ".join(str(Path(each).read_text().split()) for each in files.download(folder))


class TestToFiles:
    def test_each_file_of_the_table_becomes_one(self, table, tmp_path):
        made = table.skip(1).to_csv_files()

        assert made.to_path() == ["/part-00000", "/part-00001"]
        paths = made.download(tmp_path / "made")
        assert [Path(each).read_text() for each in paths] == ["a,b\n2,y\n", "a,b\n3,z\n4,\n"]
        assert sorted(each.name for each in (tmp_path / "made").iterdir()) == ["part-00000", "part-00001"]

    def test_parquet_files_keep_the_types(self, table, tmp_path):
        paths = table.to_parquet_files().download(tmp_path / "made")

        again = pd.concat([pd.read_parquet(each) for each in paths], ignore_index=True)
        pd.testing.assert_frame_equal(again, table.to_pandas_dataframe())

    def test_they_are_files_like_others(self, table, tmp_path):
        one = table.to_csv_files().skip(1)

        assert one.to_path() == ["/part-00001"]
        assert Path(one.download(tmp_path / "one")[0]).read_text() == "a,b\n3,z\n4,\n"
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "part-00001").write_text("mine")
        with pytest.raises(FilesExist, match="part-00001"):
            one.download(tmp_path / "taken")
        assert (tmp_path / "taken" / "part-00001").read_text() == "mine"

    def test_a_step_gets_them_as_an_input(self, table, steps):
        steps.run(
            "import os, sys; print(sorted(os.listdir(sys.argv[1])), open(sys.argv[1] + '/part-00001').read())",
            arguments=[table.to_csv_files().as_named_input("t").as_mount()],
        )

        assert steps.lines == ["['part-00000', 'part-00001'] a,b", "3,z", "4,", ""]

    def test_inputs_made_of_the_same_rows_are_made_in_one_pass(self, table, steps, monkeypatch):
        passes = []
        real = write.cut_files
        monkeypatch.setattr(write, "cut_files", lambda *given: (passes.append(len(given[2])), real(*given)))
        train, test = table.random_split(0.5, seed=1)
        given = [
            train.to_csv_files().as_named_input("train").as_download(),
            table.to_csv_files(separator=";").as_named_input("other").as_mount(),
            test.to_csv_files().as_named_input("test").as_download(),
            test.to_csv_files().take(1).as_named_input("part").as_download("part"),
            test.to_csv_files().take(0).as_named_input("none").as_mount(),
        ]

        steps.run(
            """
            import os, sys
            for place in sys.argv[1:]:
                print(*("".join(open(place + "/" + name)).split() for name in sorted(os.listdir(place))))
            """,
            arguments=given,
        )

        assert passes == [4]
        alone = [each.dataset for each in given]
        assert steps.lines == [contents(each, steps.folder / str(place)) for place, each in enumerate(alone)]

    def test_they_cannot_be_filtered_by_what_is_not_known_before_they_are_made(self, table):
        made = table.to_csv_files()

        with pytest.raises(InvalidDeclaration, match="Filter the table"):
            made.filter(made.file_metadata("Size") > 1).to_path()

    def test_they_are_made_of_the_files_that_were_found(self, table, steps, put, tmp_path):
        definition = table.to_csv_files().definition(steps.connected)
        found = find_files(steps.connected, definition)
        put({"t/0.csv": "a,b\n9,later\n"})

        paths = download(found, tmp_path / "made")

        assert [Path(each).read_text() for each in paths] == ["a,b\n1,x\n2,y\n", "a,b\n3,z\n4,\n"]

    def test_a_file_that_is_gone_when_they_are_made_is_named_and_nothing_is_left(self, table, steps, tmp_path):
        found = find_files(steps.connected, table.to_csv_files().definition(steps.connected))
        (steps.root / "t" / "2.csv").unlink()

        with pytest.raises(FilesNotFound, match=r"2\.csv"):
            download(found, tmp_path / "made")
        assert list((tmp_path / "made").iterdir()) == []

    def test_their_definition_survives_json(self, table, steps):
        definition = table.take(2).to_csv_files(separator=";").take(1).definition(steps.connected)

        again = Definition.from_json(definition.to_json())

        assert again == definition
        assert from_definition(steps.workspace, again.to_json()).definition(steps.connected) == definition

    def test_only_tables_become_files(self, datastore, put, steps):
        put({"f/1": ""})
        Dataset.File.from_files((datastore, "f")).register(steps.workspace, "files")

        with pytest.raises(InvalidDeclaration, match="file dataset"):
            Dataset.get_by_name(steps.workspace, "files").to_csv_files().to_path()


class TestFromMemory:
    def test_a_dataframe_becomes_a_registered_table(self, workspace, datastore):
        frame = pd.DataFrame({"n": [1, 2], "t": ["a", None]})
        register = Dataset.Tabular.register_pandas_dataframe

        made = register(frame, (datastore, "frames"), "frame", description="two rows", tags={"k": "v"})

        pd.testing.assert_frame_equal(Dataset.get_by_name(workspace, "frame").to_pandas_dataframe(), frame)
        assert made.version == 1
        assert register(frame, datastore, "frame").version == 2

    def test_a_dataframe_that_parquet_cannot_hold_is_refused_before_anything_is_written(self, workspace, steps):
        frame = pd.DataFrame({"mixed": [1, "a", object()]})

        with pytest.raises(InvalidDeclaration, match="cannot be stored as Parquet"):
            Dataset.Tabular.register_pandas_dataframe(frame, workspace.get_default_datastore(), "frame")
        assert not steps.root.exists()
        with pytest.raises(InvalidDeclaration, match="empty"):
            Dataset.Tabular.register_pandas_dataframe(pd.DataFrame({"a": [1]}), workspace.get_default_datastore(), "")
        assert not steps.root.exists()

    def test_a_folder_becomes_a_dataset(self, datastore, tmp_path):
        for name in ("a.csv", "sub/b.csv", "c.txt"):
            (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "local" / name).write_text(name)
        upload = Dataset.File.upload_directory

        assert upload(tmp_path / "local", (datastore, "all")).to_path() == ["/a.csv", "/c.txt", "/sub/b.csv"]
        assert upload(tmp_path / "local", (datastore, "csv"), pattern="**/*.csv").to_path() == ["/a.csv", "/sub/b.csv"]
        (tmp_path / "local" / "a.csv").write_text("new")
        with pytest.raises(FilesExist):
            upload(tmp_path / "local", (datastore, "all"))
        upload(tmp_path / "local", (datastore, "all"), overwrite=True)
        with pytest.raises(FilesNotFound, match="nothing"):
            upload(tmp_path / "local", (datastore, "none"), pattern="nothing")
