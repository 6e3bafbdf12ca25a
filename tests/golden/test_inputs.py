"""G24 to G34: inputs, their access modes, and what a script finds of them (semantics, sections 8 and 9)."""

from __future__ import annotations

import json
import os

import pytest

from airflow_aml_data import Dataset, DatasetConsumptionConfig, Datastore, OutputFileDatasetConfig, Workspace
from airflow_aml_data.errors import InvalidDeclaration

STORE = Datastore(Workspace(), "workspaceblobstore")
FILES = Dataset.File.from_files((STORE, "raw"))
TABLE = Dataset.Tabular.from_delimited_files((STORE, "raw.csv"))


def test_g24_a_named_input_is_direct():
    named = FILES.as_named_input("x")

    assert (named.name, named.mode, named.path_on_compute) == ("x", "direct", None)


def test_g25_as_mount_and_as_download_set_mode_and_path_and_keep_the_name():
    named = FILES.as_named_input("x")

    mounted, downloaded = named.as_mount(), named.as_download("/d")

    assert (mounted.name, mounted.mode, mounted.path_on_compute) == ("x", "mount", None)
    assert (downloaded.name, downloaded.mode, downloaded.path_on_compute) == ("x", "download", "/d")
    assert named.mode == "direct"


@pytest.mark.parametrize("mode", ["mount", "download"])
def test_g26_another_mode_of_a_table_is_refused_when_it_is_declared(mode, refusal):
    said = f"TabularDataset does not support {mode}. Only FileDataset supports {mode}."

    with pytest.raises(InvalidDeclaration) as refused:
        getattr(TABLE.as_named_input("t"), f"as_{mode}")()

    assert str(refused.value).startswith(said)
    assert said in refusal(f"table.as_named_input('t').as_{mode}()")


def test_g27_modes_are_lower_cased():
    assert DatasetConsumptionConfig("x", FILES, "MOUNT").mode == "mount"


@pytest.mark.parametrize("mode", ["upload", "link", "hdfs", "", None])
def test_g27_other_modes_and_hdfs_which_is_not_offered_here_are_refused_when_they_are_declared(mode):
    with pytest.raises(InvalidDeclaration, match=f"Invalid mode {mode!r}. Mode can only be mount, download, or direct"):
        DatasetConsumptionConfig("x", FILES, mode)


@pytest.mark.parametrize("dataset", ["files", "table"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("inputs", "cannot be directly used as a step's input. Please call the as_named_input method on it"),
        ("arguments", "Datasets cannot be used directly as arguments: call as_named_input on it first"),
    ],
)
def test_g28_a_raw_dataset_is_refused_when_the_step_is_declared(dataset, place, said, refusal):
    assert said in refusal(f"step('reader', {place}=[{dataset}])")


def test_g29_a_mounted_input_cannot_be_changed(steps, put):
    put({"raw/a.txt": "old"})
    script = """
        import os, sys
        file = os.path.join(sys.argv[1], "a.txt")
        for change in (lambda: open(file + ".new", "w"), lambda: open(file, "w"), lambda: os.remove(file)):
            try:
                change()
            except OSError as error:
                print(error.errno, error.strerror)
    """

    steps.run(script, arguments=[FILES.as_named_input("raw").as_mount()])

    assert steps.lines == ["30 Read-only file system"] * 3
    assert steps.stored() == {"raw/a.txt": "old"}


def test_g30_a_mount_point_is_gone_after_the_task(steps, put, tmp_path):
    put({"raw/a.txt": "old"})
    named = FILES.as_named_input("named").as_mount(str(tmp_path / "place" / "raw"))
    scratch = FILES.as_named_input("scratch").as_mount()

    steps.run("import os, sys; [print(each, os.listdir(each)) for each in sys.argv[1:]]", arguments=[named, scratch])

    for line in steps.lines:
        place, _, found = line.partition(" ")
        assert found == "['a.txt']"
        assert not os.path.lexists(place)
    assert steps.stored() == {"raw/a.txt": "old"}


@pytest.mark.parametrize("mode", ["as_mount", "as_download"])
def test_g31_one_file_is_handed_over_as_a_file_and_more_as_their_folder(mode, steps, put):
    put({"raw/a.txt": "one", "raw/b.txt": "two"})
    asked = [(STORE, "raw/a.txt"), [(STORE, "raw/a.txt"), (STORE, "raw/b.txt")], (STORE, "raw")]
    script = "import os, sys; [print('file' if os.path.isfile(each) else 'folder') for each in sys.argv[1:]]"

    steps.run(script, arguments=[getattr(Dataset.File.from_files(each), mode)() for each in asked])

    assert steps.lines == ["file", "folder", "folder"]


def test_g32_input_datasets_hold_the_path_of_a_mount_and_the_dataset_of_a_direct_input(steps, put):
    put({"raw/a.txt": "one"})
    script = """
        import json, os, sys
        from azureml.core import Run
        inputs = Run.get_context().input_datasets
        print(json.dumps([inputs["raw"], sys.argv[1], os.environ["raw"], os.listdir(inputs["raw"])]))
        print(json.dumps([type(inputs["direct"]).__name__, inputs["direct"].to_path()]))
    """

    steps.run(script, arguments=[FILES.as_named_input("raw").as_mount()], inputs=[FILES.as_named_input("direct")])

    path, argument, variable, found = json.loads(steps.lines[0])
    assert path == argument == variable
    assert found == ["a.txt"]
    assert json.loads(steps.lines[1]) == ["FileDataset", ["/a.txt"]]


def test_g33_an_output_as_input_is_mounted_or_downloaded_and_a_tabular_output_is_direct():
    output = OutputFileDatasetConfig("out")

    assert (output.as_input("x").name, output.as_input("x").mode) == ("x", "mount")
    assert output.as_input().as_download().mode == "download"
    for tabular in (output.read_delimited_files(), output.read_parquet_files()):
        assert tabular.as_input().mode == "direct"
        for mode in ("mount", "download"):
            with pytest.raises(InvalidDeclaration, match=f"Only FileDataset supports {mode}"):
                getattr(tabular.as_input(), f"as_{mode}")()


def test_g34_a_relative_path_on_compute_is_below_the_working_directory_and_an_absolute_one_is_as_it_is(
    steps, put, tmp_path
):
    put({"raw/a.txt": "one"})
    relative = FILES.as_named_input("relative").as_download("my/raw")
    absolute = FILES.as_named_input("absolute").as_download(str(tmp_path / "place"))

    steps.run(
        "import os, sys; print(*sys.argv[1:], os.getcwd(), *os.listdir('my/raw'))", arguments=[relative, absolute]
    )

    first, second, working_directory, *found = steps.lines[0].split()
    assert first == f"{working_directory}/my/raw"
    assert second == str(tmp_path / "place")
    assert found == ["a.txt"]
