"""A folder as a datastore."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from airflow_aml_data.core.manifest import read_local
from airflow_aml_data.core.storage.base import DatastoreConfig, Placement, StoredFile
from airflow_aml_data.core.storage.files import move, remove_tree
from airflow_aml_data.core.storage.local import LocalStorage, open_local
from airflow_aml_data.errors import FilesExist, FilesNotFound, InvalidConfiguration, InvalidPath, StorageError
from tests.core.steps import become_ordinary_user, in_child


def quiet(files: int, size_bytes: int) -> None:
    pass


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def storage(root):
    return LocalStorage("store", root)


@pytest.fixture
def put(storage, tmp_path):
    def put(*paths: str, overwrite: bool = False, content: str = "x") -> None:
        source = tmp_path / "source"
        source.write_text(content)
        storage.upload([(source, path) for path in paths], overwrite=overwrite, progress=quiet)

    return put


def listed(storage, path=""):
    return sorted(each.path for each in storage.list_files(path))


def test_lists_files_at_any_depth_without_what_is_reserved(storage, put):
    put("a", "d/b", "d/.hidden", "d/e/c")
    storage.write_bytes(".aml_data/manifests/x", b"m")

    assert listed(storage) == ["a", "d/.hidden", "d/b", "d/e/c"]
    assert listed(storage, "d/e") == ["d/e/c"]
    assert listed(storage, "a") == ["a"]
    assert listed(storage, "missing") == []


def test_an_etag_changes_with_the_content(storage, put):
    put("a", content="x")
    first = next(storage.list_files("a")).etag
    put("a", content="y", overwrite=True)
    assert next(storage.list_files("a")).etag != first


@pytest.mark.parametrize("path", ["..", "a/../../b", "/etc/passwd", ".aml_data/x"])
def test_paths_out_of_the_root_are_refused_by_every_call(storage, path, tmp_path):
    (tmp_path / "file").write_text("x")
    for call in (
        lambda: list(storage.list_files(path)),
        lambda: storage.upload([(tmp_path / "file", path)], overwrite=True, progress=quiet),
        lambda: storage.output_folder(path),
        lambda: storage.mount_folder(path, tmp_path / "m"),
        lambda: storage.publish("r", "o", tmp_path, [], path, overwrite=True, exclusive=True, progress=quiet),
        lambda: storage.take_back("r", "o", path, exclusive=True),
    ):
        with pytest.raises(InvalidPath):
            call()
    if not path.startswith(".aml_data"):
        for call in (
            lambda: storage.read_bytes(path),
            lambda: storage.write_bytes(path, b""),
            lambda: storage.delete_files([path]),
        ):
            with pytest.raises(InvalidPath):
                call()


def test_links_out_of_the_root_are_not_followed(storage, root, put, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("mine")
    (root / "out").symlink_to(outside)
    for call in (
        lambda: listed(storage),
        lambda: listed(storage, "out"),
        lambda: put("out/f", overwrite=True),
        lambda: put("out/new"),
        lambda: storage.read_bytes("out/f"),
        lambda: storage.delete_files(["out/f"]),
        lambda: storage.take_back("r", "o", "out", exclusive=True),
    ):
        with pytest.raises(InvalidPath):
            call()
    assert [each.read_text() for each in outside.iterdir()] == ["mine"]


def test_a_root_that_is_a_link_is_fine(tmp_path, root):
    (tmp_path / "link").symlink_to(root)
    storage = LocalStorage("store", tmp_path / "link")
    storage.write_bytes("d/a", b"x")
    assert listed(storage) == ["d/a"]
    assert storage.read_bytes("d/a") == b"x"


def test_a_link_loop_is_an_error_and_not_a_hang(storage, root):
    (root / "loop").symlink_to("loop")
    with pytest.raises((InvalidPath, StorageError)):
        listed(storage)


def test_upload_without_overwrite_writes_nothing_when_one_file_differs(storage, put):
    put("b", content="old")
    with pytest.raises(FilesExist, match="b"):
        put("a", "b", content="new")
    assert listed(storage) == ["b"]
    assert storage.read_bytes("b") == b"old"


def test_upload_of_identical_files_leaves_them_as_they_are(storage, put):
    put("a", content="same")
    before = next(storage.list_files("a"))
    put("a", "b", content="same")
    assert next(storage.list_files("a")) == before
    assert listed(storage) == ["a", "b"]


def test_a_failing_upload_leaves_no_half_file(storage, root, monkeypatch, put):
    def half(source, target):
        Path(target).write_text("ha")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("airflow_aml_data.core.storage.local.shutil.copyfile", half)
    with pytest.raises(StorageError, match="No space left"):
        put("a")
    assert [each for each in root.rglob("*") if each.is_file()] == []


def test_downloads_are_copies_the_caller_may_change(storage, put, tmp_path, root):
    put("a")
    (root / "a").chmod(0o444)
    stored = next(storage.list_files("a"))
    storage.download([Placement(stored, "deep/b")], tmp_path / "to", quiet)
    copy = tmp_path / "to/deep/b"
    assert copy.stat().st_ino != (root / "a").stat().st_ino
    assert copy.stat().st_mode & 0o200


def test_a_file_that_is_gone_is_named(storage, tmp_path):
    with pytest.raises(FilesNotFound, match="gone"):
        storage.download([Placement(StoredFile("gone", 1, "e"), "gone")], tmp_path / "to", quiet)


def test_deleting_removes_empty_folders_and_nothing_else(storage, put, root):
    put("a/b/c", "a/d")
    storage.delete_files(["a/b/c", "a/b/missing"])
    assert listed(storage) == ["a/d"]
    assert not (root / "a/b").exists()
    storage.delete_files(["a/d"])
    assert root.exists()


@pytest.mark.slow
def test_two_that_come_and_go_do_not_remove_each_others_folders(storage):
    """Empty parents are removed while others put something into them."""
    errors = []

    def work(number: int) -> None:
        try:
            for count in range(150):
                run = f"{number}.{count}"
                files = stage(storage, run, f=run)
                storage.publish(
                    run,
                    "o",
                    staged(storage, run),
                    files,
                    f"dataset/{run}/o",
                    overwrite=False,
                    exclusive=True,
                    progress=quiet,
                )
                storage.write_bytes(f".aml_data/manifests/{run}/o.jsonl", b"")
                storage.delete_files([f".aml_data/manifests/{run}/o.jsonl"])
                if number:
                    storage.take_back(run, "o", f"dataset/{run}/o", exclusive=True)
                else:
                    storage.delete_files([f"dataset/{run}/o/f"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    assert errors == []
    assert listed(storage) == []


def staged(storage, run):
    return storage.root / ".aml_data/staging" / run / "o"


def stage(storage, run, **contents):
    folder = storage.staging_folder(run, "o", storage.root)
    for name, content in contents.items():
        (folder / name).write_text(content)
    return read_local((name, str(folder / name)) for name in contents)


@pytest.mark.parametrize("links", [True, False])
class TestTakeBack:
    @pytest.fixture(autouse=True)
    def without_links(self, links, monkeypatch):
        if not links:

            def refuse(*args):
                raise PermissionError(1, "no links here")

            monkeypatch.setattr(os, "link", refuse)

    def test_restores_what_a_merge_replaced(self, storage, put):
        put("d/a", "d/b", content="old")
        files = stage(storage, "r", a="new", c="new")
        storage.publish("r", "o", staged(storage, "r"), files, "d", overwrite=True, exclusive=False, progress=quiet)
        assert storage.read_bytes("d/a") == b"new"

        for _ in range(2):  # again: nothing more happens
            storage.take_back("r", "o", "d", exclusive=False)

        assert {each: storage.read_bytes(each) for each in listed(storage)} == {"d/a": b"old", "d/b": b"old"}

    def test_leaves_what_others_wrote_there_since(self, storage, put):
        files = stage(storage, "r", a="mine", b="mine")
        storage.publish(
            "r", "o", staged(storage, "r"), files[:1], "d", overwrite=False, exclusive=False, progress=quiet
        )
        if os.path.lexists(storage.root / ".aml_data/staging/r/o/a"):  # the same file as the one in place
            put("d/a", content="theirs", overwrite=True)
        else:
            (storage.root / "d/a").rename(storage.root / ".aml_data/staging/r/o/a")
            put("d/a", content="theirs")
        put("d/b", content="theirs")
        storage.take_back("r", "o", "d", exclusive=False)
        assert listed(storage) == ["d/a", "d/b"]

    def test_never_removes_a_file_that_equals_the_staged_one(self, storage, put):
        """Same content and times, but another file: committed by someone else."""
        put("d/a", content="same")
        stage(storage, "r", a="same")
        status = (storage.root / "d/a").stat()
        os.utime(storage.root / ".aml_data/staging/r/o/a", ns=(status.st_atime_ns, status.st_mtime_ns))
        storage.take_back("r", "o", "d", exclusive=False)
        assert listed(storage) == ["d/a"]

    def test_after_the_commit_there_is_nothing_to_take_back(self, storage):
        files = stage(storage, "r", a="x")
        storage.publish("r", "o", staged(storage, "r"), files, "d", overwrite=False, exclusive=False, progress=quiet)
        storage.drop_staging("r", "o")
        storage.take_back("r", "o", "d", exclusive=False)
        assert listed(storage) == ["d/a"]


def test_trees_without_permissions_can_be_removed(tmp_path):
    def work() -> None:
        become_ordinary_user()
        inner = tmp_path / "tree/a/b"
        inner.mkdir(parents=True)
        (inner / "f").touch()
        for each in (inner, inner.parent):
            each.chmod(0)
        remove_tree(tmp_path / "tree")

    assert in_child(work) == 0
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("options", [{}, {"root": 5}, {"root": "relative"}, {"root": "/x", "rot": "/y"}])
def test_options_are_checked(options):
    with pytest.raises(InvalidConfiguration, match="store"):
        open_local(DatastoreConfig(name="store", kind="local", options=options))


def test_check_says_what_it_is_or_why_it_does_not_work(storage, root, tmp_path):
    assert "writable" in storage.check()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="not a folder"):
        LocalStorage("x", tmp_path / "file").check()


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_is_written_while_it_is_deleted_stays(storage, root, put, monkeypatch, times, links):
    """It is what it was when it was looked at, and another one when it is taken away."""
    put("d/a", content="old")
    (file,) = storage.list_files("")
    if not links:
        monkeypatch.setattr("airflow_aml_data.core.storage.local.link", lambda *_: False)

    def written_before_and_after(source: Path, target: Path) -> None:
        monkeypatch.setattr("airflow_aml_data.core.storage.local.move", move)
        put("d/a", content="new", overwrite=True)
        move(source, target)
        if times == 2:
            put("d/a", content="newer", overwrite=True)

    monkeypatch.setattr("airflow_aml_data.core.storage.local.move", written_before_and_after)
    (done,) = storage.delete_unchanged([file])
    assert done.outcome == "changed"
    assert (root / "d/a").read_text() == ("new" if times == 1 else "newer")
    assert [each for each in (root / ".aml_data").rglob("*") if each.is_file()] == []


def test_a_link_is_deleted_and_what_it_leads_to_stays(storage, root, put):
    put("data/a")
    (root / "links").mkdir()
    (root / "links/a").symlink_to("../data/a")
    (done,) = storage.delete_unchanged(storage.list_files("links"))
    assert done.outcome == "deleted"
    assert listed(storage) == ["data/a"]
