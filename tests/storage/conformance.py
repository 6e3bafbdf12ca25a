"""What every kind of datastore has to do; each kind inherits it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_aml_data.core.manifest import LocalFile, read_local
from airflow_aml_data.core.storage.base import Deletion, Placement, Storage, StoredFile
from airflow_aml_data.errors import DataChanged, FilesExist, FilesNotFound, InvalidPath, OutputConflict

LARGE = 20 * 1024 * 1024 + 3
"""More than one request moves, and no multiple of it."""

NAMES = [
    "plain",
    "with space",
    "100%",
    "a#b",
    "what?",
    "plus+",
    "ü/日本",
    ".hidden",
    "dot.",
    "~",
    "a&b=c",
    "%41",
    "q'\"",
    "[1]{2}",
]


def quiet(files: int, size_bytes: int) -> None:
    pass


class StorageContract:
    """Give it a fixture ``storage``: an empty datastore."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError

    @pytest.fixture
    def put(self, storage: Storage, tmp_path: Path) -> Callable[..., None]:
        def put(*paths: str, content: str | bytes = "x", overwrite: bool = True) -> None:
            source = tmp_path / "to_put"
            source.write_bytes(content.encode() if isinstance(content, str) else content)
            storage.upload([(source, path) for path in paths], overwrite=overwrite, progress=quiet)

        return put

    @pytest.fixture
    def stage(self, storage: Storage, tmp_path: Path) -> Callable[..., tuple[Path, list[LocalFile]]]:
        def stage(run: str, **contents: str) -> tuple[Path, list[LocalFile]]:
            folder = storage.staging_folder(run, "o", tmp_path / "scratch" / run)
            for name, content in contents.items():
                (folder / name).write_text(content)
            return folder, read_local((name, str(folder / name)) for name in contents)

        return stage

    # -- listing

    def test_lists_files_at_any_depth_without_what_is_reserved(self, storage, put):
        put("a", "d/b", "d/.hidden", "d/e/c", "d.x", "dd/f")
        storage.write_bytes(".aml_data/manifests/x", b"m")

        assert listed(storage) == ["a", "d.x", "d/.hidden", "d/b", "d/e/c", "dd/f"]
        assert listed(storage, "d") == ["d/.hidden", "d/b", "d/e/c"]
        assert listed(storage, "d/e") == ["d/e/c"]
        assert listed(storage, "a") == ["a"]
        assert listed(storage, "d/e/c") == ["d/e/c"]
        assert listed(storage, "missing") == []

    def test_lists_what_is_reserved_when_asked_for(self, storage, put):
        assert list(storage.list_reserved()) == []
        put("a.txt")
        storage.write_bytes(".aml_data/manifests/x", b"m")
        storage.write_bytes(".aml_data/staging/y/z", b"zz")
        found = {each.path: (each.size_bytes, bool(each.etag), bool(each.modified)) for each in storage.list_reserved()}
        assert found == {".aml_data/manifests/x": (1, True, True), ".aml_data/staging/y/z": (2, True, True)}
        assert [each.path for each in storage.list_reserved(".aml_data/staging")] == [".aml_data/staging/y/z"]
        with pytest.raises(InvalidPath):
            list(storage.list_reserved("../x"))

    def test_a_survey_has_every_file_once(self, storage, put):
        put("a.txt", "d/b", "d/e/c")
        storage.write_bytes(".aml_data/manifests/x", b"m")
        listed = [*storage.list_files(""), *storage.list_reserved()]
        for path in ("", "d", ".aml_data"):
            found = [each for survey in storage.survey(path) for each in zip(*survey, strict=True)]
            files = [each for each in found if each[1]]  # the others are marks of folders
            expected = [each for each in listed if not path or each.path.startswith(f"{path}/")]
            assert sorted(files) == sorted((each.path, each.size_bytes, each.modified) for each in expected)

    def test_a_listed_file_has_size_time_and_an_etag_that_changes_with_the_content(self, storage, put):
        put("a", content="x")
        first = only(storage, "a")
        put("a", content="y2")
        second = only(storage, "a")
        assert (first.size_bytes, second.size_bytes) == (1, 2)
        assert first.etag
        assert '"' not in first.etag
        assert first.etag != second.etag
        assert second.modified >= first.modified > 1.7e9

    @pytest.mark.parametrize("name", NAMES)
    def test_any_name_comes_back(self, storage, put, tmp_path, name):
        put(f"n/{name}", content=name)
        file = only(storage, "n")
        assert file.path == f"n/{name}"
        assert storage.read_bytes(file.path) == name.encode()
        storage.download([Placement(file, file.path)], tmp_path / "to", quiet)
        assert (tmp_path / "to" / file.path).read_text() == name
        for etag, outcome in (("another", "changed"), (file.etag, "deleted"), (file.etag, "missing")):
            assert outcomes(storage.delete_unchanged([file._replace(etag=etag)])) == {file.path: outcome}
        put(f"n/{name}")
        storage.delete_files([file.path])
        assert listed(storage) == []

    @pytest.mark.parametrize("path", ["..", "a/../../b", "/etc/passwd", ".aml_data/x"])
    def test_paths_out_of_the_root_are_refused_by_every_call(self, storage, path, tmp_path):
        (tmp_path / "file").write_text("x")
        calls = [
            lambda: list(storage.list_files(path)),
            lambda: storage.upload([(tmp_path / "file", path)], overwrite=True, progress=quiet),
            lambda: storage.copy([(StoredFile("a", 1, "e"), path)], storage, progress=quiet),
            lambda: storage.mount_folder(path, tmp_path / "m") or storage.output_folder(path) or refuse(path),
            lambda: storage.publish("r", "o", tmp_path, [], path, overwrite=True, exclusive=True, progress=quiet),
            lambda: storage.take_back("r", "o", path, exclusive=True),
        ]
        if not path.startswith(".aml_data"):
            calls += [
                lambda: storage.read_bytes(path),
                lambda: storage.write_bytes(path, b""),
                lambda: storage.delete_files([path]),
                lambda: storage.delete_unchanged([StoredFile(path, 1, "e")]),
            ]
        for call in calls:
            with pytest.raises(InvalidPath):
                call()

    # -- reading

    def test_files_of_every_size_come_back_whole(self, storage, tmp_path):
        sizes = [0, 1, 4096, LARGE]
        contents = {f"s/{size}": bytes(range(251)) * (size // 251) + b"e" * (size % 251) for size in sizes}
        sources = []
        for path, content in contents.items():
            (source := tmp_path / path.replace("/", "_")).write_bytes(content)
            sources.append((source, path))
        moved = []
        storage.upload(sources, overwrite=False, progress=lambda *each: moved.append(each))
        assert [sum(each) for each in zip(*moved, strict=True)] == [len(sizes), sum(sizes)]

        moved.clear()
        found = list(storage.list_files("s"))
        assert {each.path: each.size_bytes for each in found} == {path: len(each) for path, each in contents.items()}
        placements = [Placement(each, each.path) for each in found]
        storage.download(placements, tmp_path / "to", lambda *each: moved.append(each))
        assert {path: (tmp_path / "to" / path).read_bytes() for path in contents} == contents
        assert [sum(each) for each in zip(*moved, strict=True)] == [len(sizes), sum(sizes)]
        assert everything_in(tmp_path / "to") == sorted(contents)

    def test_ranges_are_read_exactly(self, storage, put):
        put("a", content="0123456789")
        file = only(storage, "a")
        assert storage.read_range(file, 0, 3) == b"012"
        assert storage.read_range(file, 7, 100) == b"789"
        assert storage.read_range(file, 10, 5) == b""
        put("a", content="abcdefghijk")
        with pytest.raises(DataChanged, match="a"):
            storage.read_range(file, 0, 3)

    def test_downloads_are_copies_the_caller_may_change(self, storage, put, tmp_path):
        put("a", content="mine")
        storage.download([Placement(only(storage, "a"), "deep/b")], tmp_path / "to", quiet)
        (tmp_path / "to/deep/b").write_text("changed")
        assert storage.read_bytes("a") == b"mine"

    def test_a_file_that_is_gone_is_named(self, storage, tmp_path):
        with pytest.raises(FilesNotFound, match="gone"):
            storage.download([Placement(StoredFile("gone", 1, "e"), "gone")], tmp_path / "to", quiet)
        with pytest.raises(FilesNotFound, match="gone"):
            storage.read_bytes("gone")

    # -- writing

    def test_upload_without_overwrite_writes_nothing_when_one_file_differs(self, storage, put):
        put("b", content="old")
        with pytest.raises(FilesExist, match="b"):
            put("a", "b", content="new", overwrite=False)
        assert listed(storage) == ["b"]
        assert storage.read_bytes("b") == b"old"

    def test_upload_of_identical_files_leaves_them_as_they_are(self, storage, put):
        put("a", content="same")
        before = only(storage, "a")
        put("a", "b", content="same", overwrite=False)
        assert only(storage, "a") == before
        assert listed(storage) == ["a", "b"]

    def test_a_small_file_is_replaced(self, storage):
        for content in (b"one", b"", b"three"):
            storage.write_bytes("d/a", content)
            assert storage.read_bytes("d/a") == content

    def test_deleting_takes_what_is_there_and_nothing_else(self, storage, put):
        put("a/b/c", "a/d", "a/bb")
        storage.delete_files(["a/b/c", "a/b/missing", "nothing/at/all"])
        assert listed(storage) == ["a/bb", "a/d"]
        storage.delete_files(["a/d", "a/bb"])
        assert listed(storage) == []
        storage.delete_files([])

    def test_deletes_only_what_is_still_what_was_listed(self, storage, put):
        put("a/same", "a/changed", "a/gone", "a/b/any", "c/same", content="old")
        files = {each.path: each for each in storage.list_files("")}
        put("a/changed", content="new")
        storage.delete_files(["a/gone"])
        files["a/b/any"] = files["a/b/any"]._replace(etag="")

        done = storage.delete_unchanged([*files.values(), StoredFile("no/such", 3, "")])

        assert {each.file for each in done} == {*files.values(), StoredFile("no/such", 3, "")}
        assert outcomes(done) == {
            "a/same": "deleted",
            "a/changed": "changed",
            "a/gone": "missing",
            "a/b/any": "deleted",
            "c/same": "deleted",
            "no/such": "missing",
        }
        assert {each: storage.read_bytes(each) for each in listed(storage)} == {"a/changed": b"new"}
        assert storage.delete_unchanged([]) == []

    def test_deletes_more_than_one_request_can_hold(self, storage, put):
        paths = [f"d{number % 7}/{number}" for number in range(600)]
        put(*paths, "d0/stays")
        before = [each for each in storage.list_files("") if each.path != "d0/stays"]
        put(*paths[:300:50], content="y")
        done = storage.delete_unchanged(before)
        assert Counter(each.outcome for each in done) == {"deleted": 594, "changed": 6}
        assert listed(storage) == sorted([*paths[:300:50], "d0/stays"])

    def test_copies_within_itself(self, storage, put):
        put("a", content="new")
        put("b/c", content="old")
        file = only(storage, "a")
        storage.copy([(file, "b/c"), (file, "e")], storage, progress=quiet)
        assert {each: storage.read_bytes(each) for each in listed(storage)} == {"a": b"new", "b/c": b"new", "e": b"new"}

    def test_check_says_that_it_can_be_written(self, storage):
        assert "writable" in storage.check()
        assert listed(storage) == []

    # -- publishing

    def test_publishes_in_order_and_takes_back_an_exclusive_destination(self, storage, stage, put):
        put("out/other/x")
        folder, files = stage("r", b="bb", a="a")
        stored = storage.publish("r", "o", folder, files, "out/r/o", overwrite=False, exclusive=True, progress=quiet)
        assert [(each.path, each.size_bytes) for each in stored] == [("out/r/o/b", 2), ("out/r/o/a", 1)]
        assert {each.path: each.etag for each in storage.list_files("out/r")} == {
            each.path: each.etag for each in stored
        }
        for _ in range(2):
            storage.take_back("r", "o", "out/r/o", exclusive=True)
        assert listed(storage) == ["out/other/x"]

    def test_publishes_one_file_as_the_destination(self, storage, stage):
        folder, _ = stage("r")
        folder.rmdir()
        folder.write_text("whole")
        files = read_local([("", str(folder))])
        (stored,) = storage.publish("r", "o", folder, files, "out/f", overwrite=False, exclusive=True, progress=quiet)
        assert stored.path == "out/f"
        assert storage.read_bytes("out/f") == b"whole"

    def test_publishing_over_a_file_without_overwrite_changes_nothing(self, storage, stage, put):
        put("d/b", content="old")
        folder, files = stage("r", a="new", b="new")
        with pytest.raises(OutputConflict, match="b"):
            storage.publish("r", "o", folder, files, "d", overwrite=False, exclusive=False, progress=quiet)
        assert {each: storage.read_bytes(each) for each in listed(storage)} == {"d/b": b"old"}

    def test_takes_back_and_restores_what_was_replaced(self, storage, stage, put):
        put("d/a", "d/b", content="old")
        folder, files = stage("r", a="new", c="new")
        storage.publish("r", "o", folder, files, "d", overwrite=True, exclusive=False, progress=quiet)
        assert storage.read_bytes("d/a") == b"new"

        for _ in range(2):  # again: nothing more happens
            storage.take_back("r", "o", "d", exclusive=False)

        assert {each: storage.read_bytes(each) for each in listed(storage)} == {"d/a": b"old", "d/b": b"old"}

    def test_taking_back_leaves_what_others_wrote_there_since(self, storage, stage, put):
        folder, files = stage("r", a="mine", b="mine")
        storage.publish("r", "o", folder, files, "d", overwrite=False, exclusive=False, progress=quiet)
        put("d/a", content="theirs")
        storage.take_back("r", "o", "d", exclusive=False)
        assert {each: storage.read_bytes(each) for each in listed(storage)} == {"d/a": b"theirs"}

    def test_after_the_commit_there_is_nothing_to_take_back(self, storage, stage):
        folder, files = stage("r", a="x")
        storage.publish("r", "o", folder, files, "d", overwrite=False, exclusive=False, progress=quiet)
        storage.drop_staging("r", "o")
        storage.take_back("r", "o", "d", exclusive=False)
        assert listed(storage) == ["d/a"]


def outcomes(deletions: list[Deletion]) -> dict[str, str]:
    return {each.file.path: each.outcome for each in deletions}


def listed(storage: Storage, path: str = "") -> list[str]:
    return sorted(each.path for each in storage.list_files(path))


def only(storage: Storage, path: str) -> StoredFile:
    (file,) = storage.list_files(path)
    return file


def everything_in(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if not each.is_dir())


def refuse(path: str) -> None:
    """For calls that have nothing to refuse because they do nothing."""
    raise InvalidPath(path)
