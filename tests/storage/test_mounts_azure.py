"""Steps that mount what lies in Azure Blob storage: what they read comes from there, what they close is there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from airflow_aml_data import Dataset, Datastore
from airflow_aml_data.core import connections
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.errors import StepFailed
from tests.core.steps import READ, Steps

pytestmark = pytest.mark.slow

FIXED = OutputFileDatasetConfig("out", destination=("blobs", "fixed/place"))


@pytest.fixture
def steps(steps: Steps, azurite, monkeypatch, tmp_path) -> Steps:
    """In a workspace with a container."""
    container = tmp_path.name.replace("_", "-")[-60:].strip("-")
    azurite.create_container(container)
    workspace = {
        "datastores": {"blobs": {"kind": "azure_blob", "container_name": container, "conn_id": "first"}},
        "catalog_connection_string": steps.connected.config.catalog_connection_string,
    }
    extra = {"connection_string": azurite.connection_string("first")}
    connection = ConnectionFields(conn_id="first", conn_type="wasb", extra=extra)
    monkeypatch.setattr(connections, "source", lambda _: workspace)
    monkeypatch.setattr(connections, "reader", lambda _: connection)
    return steps


def put(steps: Steps, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        steps.connected.storage("blobs").write_bytes(path, content)


def stored(steps: Steps, below: str) -> dict[str, bytes]:
    storage = steps.connected.storage("blobs")
    return {each.path.removeprefix(f"{below}/"): storage.read_bytes(each.path) for each in storage.list_files(below)}


def mounted(steps: Steps, path: str):
    return Dataset.File.from_files((Datastore(steps.workspace, "blobs"), path)).as_named_input("raw").as_mount()


def test_only_what_is_read_is_moved(steps):
    put(steps, {f"in/{number:03}": b"%03d" % number * 1000 for number in range(200)} | {"in/large": b"x" * 9_000_000})
    script = """
        import os, sys
        print(len(os.listdir(sys.argv[1])), [open(f"{sys.argv[1]}/{n:03}").read() == f"{n:03}" * 1000 for n in (0, 7)])
        print(os.pread(os.open(sys.argv[1] + "/large", os.O_RDONLY), 5, 8_000_000))
    """
    steps.run(script, arguments=[mounted(steps, "in")])
    assert steps.lines[:2] == ["201 [True, True]", "b'xxxxx'"]
    assert steps.lines[2].startswith("Mounted inputs: 3 of 201 files were read, ")
    assert " KiB of 9.2 MiB" in steps.lines[2]


def test_a_large_file_from_front_to_back(steps):
    content = bytes(range(256)) * 4 * 20_011
    put(steps, {"in/large": content})
    script = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    steps.run(script, arguments=[mounted(steps, "in/large")])
    assert steps.lines[0] == hashlib.sha256(content).hexdigest()


def test_a_blob_that_is_replaced_is_an_error_that_names_it(steps, tmp_path):
    put(steps, {"in/a.txt": b"old", "in/b.txt": b"old"})
    go = tmp_path / "go"
    script = """
        import os, sys, time
        print(open(sys.argv[1] + "/b.txt").read(), flush=True)
        while not os.path.exists(sys.argv[2]): time.sleep(0.01)
        open(sys.argv[1] + "/a.txt").read()
    """

    def on_line(line: str) -> None:
        steps.lines.append(line)
        if line == "old":
            put(steps, {"in/a.txt": b"new"})
            go.touch()

    with pytest.raises(StepFailed):
        steps.run(script, arguments=[mounted(steps, "in"), str(go)], on_line=on_line)
    (told,) = (each for each in steps.lines if each.startswith("'raw/a.txt' of the step's mount cannot be read"))
    assert "in/a.txt" in told


def test_files_are_stored_as_they_are_closed_and_a_killed_script_leaves_exactly_these(steps):
    put(steps, {"fixed/place/longer": b"old", "fixed/place/kept": b"old", "fixed/place/deep/moved": b"old"})
    script = """
        import os, sys
        out = sys.argv[1]
        for n in range(50):
            with open(f"{out}/{n}", "w") as file: file.write(str(n))
        with open(f"{out}/longer", "a") as file: file.write("!")
        os.rename(f"{out}/deep", f"{out}/deeper")
        os.rename(f"{out}/1", f"{out}/one")
        os.remove(f"{out}/0")
        half = open(f"{out}/half", "w")
        half.write("x" * 100_000); half.flush()
        os.kill(os.getpid(), 9)
    """
    with pytest.raises(StepFailed, match="signal 9"):
        steps.run(script, arguments=[FIXED])
    assert stored(steps, "fixed/place") == {
        **{str(n): str(n).encode() for n in range(2, 50)},
        "one": b"1",
        "longer": b"old!",
        "kept": b"old",
        "deeper/moved": b"old",
    }
    assert steps.states() == ["abandoned"]


def test_one_step_writes_what_the_next_reads(steps):
    made = steps.run("import sys; open(sys.argv[1], 'w').write('csv')", arguments=[FIXED], task_id="file").outputs[0]
    assert made.to_path() == ["/place"]
    made = steps.write("a.txt", "b/ü.txt", output=OutputFileDatasetConfig("out"), task_id="folder")
    steps.run(READ, arguments=[made], task_id="read")
    assert sorted(steps.lines[:2]) == ["a.txt new a.txt", "b/ü.txt new b/ü.txt"]


def test_no_secret_is_in_the_arguments_or_environment_of_a_process(steps, azurite, tmp_path):
    put(steps, {"in/a.txt": b"old"})
    script = """
        import os, sys, time
        print(open(sys.argv[1] + "/a.txt").read(), flush=True)
        while not os.path.exists(sys.argv[2]): time.sleep(0.01)
    """
    others, shown = children(), {}

    def on_line(line: str) -> None:
        for each in children() - others if line == "old" else ():  # later they end
            shown[each] = [Path("/proc", each, name).read_bytes() for name in ("cmdline", "environ")]
        (tmp_path / "go").touch()

    steps.run(script, arguments=[mounted(steps, "in"), str(tmp_path / "go")], on_line=on_line)
    assert any(b"fuse.server" in arguments for arguments, _ in shown.values())
    assert not any(azurite.keys["first"].encode() in each for both in shown.values() for each in both)


def children() -> set[str]:
    return {each for file in Path("/proc/self/task").glob("*/children") for each in file.read_text().split()}
