"""G57 to G59: which files a path names, and when they are looked for (semantics, sections 4 and 6)."""

from __future__ import annotations

import pytest

from airflow_aml_data import Dataset, Datastore, Workspace
from airflow_aml_data.errors import FilesNotFound

STORE = Datastore(Workspace(), "workspaceblobstore")


@pytest.fixture
def animals(put):
    """Cats on two levels, one with a name in capitals and one hidden; and dogs."""
    names = ["cat/1.jpg", "cat/.2.jpg", "cat/UP.JPG", "cat/old/3.jpg", "cat/notes.txt", "dog/4.jpg", "dog/5.jpg"]
    put({name: name for name in names})


def listed(*paths: str) -> list[str]:
    return Dataset.File.from_files([(STORE, each) for each in paths]).to_path()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("cat/*.jpg", ["/cat/.2.jpg", "/cat/1.jpg"]),
        ("cat/**/*.jpg", ["/cat/.2.jpg", "/cat/1.jpg", "/cat/old/3.jpg"]),
        ("cat", ["/cat/.2.jpg", "/cat/1.jpg", "/cat/UP.JPG", "/cat/notes.txt", "/cat/old/3.jpg"]),
    ],
    ids=["one level, by case, with dot-files", "any depth", "a folder and all below"],
)
def test_g57_globs_and_folders_of_a_list_name_files_as_in_v1(path, found, animals):
    assert sorted(listed("dog/5.jpg", path)) == sorted(["/dog/5.jpg", *found])
    assert listed("dog/5.jpg", path, "dog/4.jpg")[:: len(found) + 1] == ["/dog/5.jpg", "/dog/4.jpg"]


@pytest.mark.parametrize("path", ["cat/*.png", "cat/9.jpg", "horse"])
def test_g58_a_path_without_a_file_is_an_error_when_it_is_used_not_an_empty_dataset(path, animals):
    alone = Dataset.File.from_files((STORE, path))
    among = Dataset.File.from_files([(STORE, "dog"), (STORE, path)])
    table = Dataset.Tabular.from_delimited_files((STORE, path))

    for use in (alone.to_path, alone.download, among.to_path, table.to_pandas_dataframe):
        with pytest.raises(FilesNotFound, match="The requested stream was not found") as error:
            use()
        assert path in str(error.value)


def test_g59_subsetting_returns_new_objects_changes_no_source_and_reads_nothing():
    nowhere = Datastore(Workspace("no_such_connection"), "store")
    files = Dataset.File.from_files((nowhere, "data"))
    table = Dataset.Tabular.from_delimited_files((nowhere, "data.csv"), validate=False)
    before = repr([files, table])

    made = [
        *(each for source in (files, table) for each in source.random_split(0.5, seed=1)),
        *(source.take_sample(0.5, seed=2) for source in (files, table)),
        *(source.take(5) for source in (files, table)),
        *(source.skip(5) for source in (files, table)),
        files.filter(files.file_metadata("Size") > 10),
        table.filter((table["a"] > 1) & table["b"].starts_with("x")),
        table.keep_columns(["a"]),
        table.drop_columns("b"),
        table.with_timestamp_columns("when"),
    ]

    assert len({repr(each) for each in [files, table, *made]}) == 2 + len(made)
    assert repr([files, table]) == before
