"""``Workspace``, ``Datastore``, ``DataPath``: names, uploads and downloads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_aml_data import DataPath, Datastore, Workspace
from airflow_aml_data.errors import FilesExist, FilesNotFound, InvalidDeclaration, InvalidPath


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for path in ("a.txt", "sub/b.txt", "sub/.hidden", "zero"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("" if path == "zero" else path)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}


def test_what_goes_up_comes_down(datastore, source, tmp_path):
    where = datastore.upload(source, "in/put")

    assert where == DataPath(datastore, "in/put")
    assert datastore.download(tmp_path / "to") == 4
    assert contents(tmp_path / "to" / "in" / "put") == contents(source)
    assert datastore.download(tmp_path / "one", prefix="/in/put/a.txt") == 1
    assert datastore.download(tmp_path / "none", prefix="missing") == 0


def test_uploading_again_is_fine_and_another_content_is_not(datastore, source, tmp_path):
    datastore.upload(source, "x")
    datastore.upload(source, "x")
    (source / "a.txt").write_text("changed")
    (source / "new").write_text("new")
    with pytest.raises(FilesExist, match=r"a\.txt"):
        datastore.upload(source, "x")
    datastore.download(tmp_path / "to")
    assert contents(tmp_path / "to" / "x").get("new") is None

    datastore.upload(source, "x", overwrite=True)
    datastore.download(tmp_path / "to", overwrite=True)
    assert contents(tmp_path / "to" / "x") == contents(source)


@pytest.mark.parametrize("make", ["link to folder", "dangling link", "pipe"])
def test_an_upload_leaves_nothing_out_silently(datastore, source, tmp_path, make):
    if make == "link to folder":
        (tmp_path / "other").mkdir()
        (source / "link").symlink_to(tmp_path / "other")
    elif make == "dangling link":
        (source / "link").symlink_to("nowhere")
    else:
        os.mkfifo(source / "pipe")
    with pytest.raises(InvalidDeclaration, match="left out"):
        datastore.upload(source)
    assert datastore.download(tmp_path / "to") == 0


def test_upload_files_keeps_paths_below_the_root(datastore, source, tmp_path):
    files = [source / "a.txt", source / "sub/b.txt"]
    datastore.upload_files(files, target_path="common")
    datastore.upload_files(files, relative_root=tmp_path, target_path="rooted")
    datastore.download(tmp_path / "to")
    assert sorted(contents(tmp_path / "to")) == [
        "common/a.txt",
        "common/sub/b.txt",
        "rooted/source/a.txt",
        "rooted/source/sub/b.txt",
    ]


def test_uploads_that_cannot_work_write_nothing(datastore, source, tmp_path):
    good = source / "a.txt"
    for files, root, target, error in [
        ([good, source / "missing"], None, None, FilesNotFound),
        ([good, source / "sub"], None, None, FilesNotFound),
        ([good], source / "sub", None, InvalidDeclaration),
        ([good], None, "../out", InvalidPath),
        ([good], None, ".aml_data/x", InvalidPath),
    ]:
        with pytest.raises(error):
            datastore.upload_files(files, root, target)
    with pytest.raises(InvalidDeclaration, match="folder"):
        datastore.upload(good)
    assert datastore.download(tmp_path / "to") == 0


@pytest.mark.parametrize("there", ["in/b.txt", "in", "in/a.txt/x"], ids=["file", "file for folder", "folder for file"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_download_that_would_collide_writes_nothing(datastore, put, tmp_path, there, overwrite):
    put({"in/a.txt": "a", "in/b.txt": "b"})
    (tmp_path / "to" / there).parent.mkdir(parents=True)
    (tmp_path / "to" / there).write_text("mine")
    if overwrite and there == "in/b.txt":
        datastore.download(tmp_path / "to", overwrite=True)
        assert contents(tmp_path / "to") == {"in/a.txt": "a", "in/b.txt": "b"}
        return
    with pytest.raises(FilesExist):
        datastore.download(tmp_path / "to", overwrite=overwrite)
    assert contents(tmp_path / "to") == {there: "mine"}


def test_values_are_equal_by_value_and_have_stable_reprs():
    one, two = (DataPath(Datastore(Workspace("c"), "s"), "/a//b") for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert repr(one) == "DataPath(Datastore(Workspace('c'), 's'), 'a/b')"


def test_wrong_values_are_refused():
    ws = Workspace()
    for wrong in (
        lambda: Datastore("ws"),
        lambda: Datastore(ws, ""),
        lambda: Datastore(ws, 5),
        lambda: DataPath(None, "x"),
        lambda: DataPath(ws),
    ):
        with pytest.raises(InvalidDeclaration):
            wrong()
    with pytest.raises(InvalidPath):
        DataPath(Datastore(ws), "a/../..")


def test_datastores_and_datasets_are_found_by_name(workspace, datastore):
    assert list(workspace.datastores) == ["workspaceblobstore"]
    assert workspace.datastores["whatever"] == Datastore.get(workspace, "whatever")
    assert "whatever" not in workspace.datastores
    assert datastore.name == "workspaceblobstore"
    assert list(workspace.datasets) == []
