"""Publish into folders of a remote store so that it can be undone at any moment, by another machine too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from airflow_aml_data.core.identity import RESERVED_FOLDER
from airflow_aml_data.core.storage.base import Deletion, Outcome, Progress, StoredFile
from airflow_aml_data.core.storage.client import ObjectClient
from airflow_aml_data.core.storage.fetch import SMALL_THREADS, read_exactly
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import AmlDataError, DataChanged, FileKept, FilesNotFound, StorageError

_MARK = "aml_step_run"
_ROUNDS = 5
_DELETE_FILES = 256
_DELETE_THREADS = 4
_FIRST_FOLDERS = 4
_OUTCOMES: Mapping[type, Outcome] = {FilesNotFound: "missing", DataChanged: "changed", FileKept: "kept"}


class Journal:
    """What an output writes over and beside the files of others, while it is not committed.

    It lies in the store, with a copy of each file that is replaced. Each published file carries a mark, so that undoing
    leaves what others have put in its place since.
    """

    def __init__(self, client: ObjectClient, step_run_id: str, name: str) -> None:
        self._client = client
        self._path = f"{RESERVED_FOLDER}/staging/{step_run_id}/{name}"
        self.mark: Mapping[str, str] = {_MARK: f"{step_run_id}/{name}"}

    def begin(self, paths: Sequence[str], replaced: Sequence[StoredFile]) -> None:
        """Write down what will be written, and keep what it replaces."""
        content = json.dumps({"files": list(paths), "replaced": [each.path for each in replaced]})
        copy(self._client, [(each, self._kept(each.path)) for each in replaced], self._client, lambda *_: None)
        write(self._client, f"{self._path}.json", _sealed(content.encode()), reads_back=True)

    def undo(self) -> None:
        """Remove what is still ours, put back what it replaced; nothing without a journal."""
        journal = self._read()
        kept = {each.path: each for each in self._client.list_files(f"{self._path}.undo")}
        if lost := {self._kept(path) for path in journal.get("replaced", [])} - kept.keys():
            raise StorageError(
                f"{min(lost)!r}, a copy of what was replaced, is not listed in {self._client.describe()}. Nothing was undone."
            )
        requests = Requests(SMALL_THREADS)

        def find_ours(path: str) -> str:
            found = requests.retry(f"Looking at {path!r}", lambda: self._client.metadata(path))
            return path if found and found.get(_MARK) == self.mark[_MARK] else ""

        ours: list[str] = []
        requests.each(find_ours, journal.get("files", []), lambda path: ours.append(path) if path else None)
        back = [(kept[self._kept(path)], path) for path in ours if self._kept(path) in kept]
        copy(self._client, back, self._client, lambda *_: None)
        delete(self._client, set(ours) - {path for _, path in back})

    def drop(self) -> None:
        """Remove the journal and what it kept."""
        delete(self._client, [f"{self._path}.json"])  # first: without it, nothing is put back any more
        delete_below(self._client, f"{self._path}.undo")

    def _kept(self, path: str) -> str:
        return f"{self._path}.undo/{path}"

    def _read(self) -> dict[str, list[str]]:
        path = f"{self._path}.json"
        found = next(iter(self._client.list_files(path)), None)
        if found is None or found.path != path:
            return {}
        damaged: list[bytes] = []

        def read() -> bytes:
            sealed = bytes(read_exactly(self._client, found, 0, found.size_bytes))
            content = _unsealed(sealed)
            if (
                content is None and sealed in damaged
            ):  # it lies so in the store: nothing is published before it is whole
                return b"{}"
            if content is None:
                damaged.append(sealed)
                raise StorageError(f"{path!r} in {self._client.describe()} came damaged.")
            return content

        journal: dict[str, list[str]] = json.loads(Requests().one(f"Reading {path!r}", read))
        return journal


def _sealed(content: bytes) -> bytes:
    """With its checksum: what a damaged journal does not name would not be undone."""
    return sha256(content).hexdigest().encode() + b"\n" + content


def _unsealed(sealed: bytes) -> bytes | None:
    content = sealed.partition(b"\n")[2]
    return content if _sealed(content) == sealed else None


def write(client: ObjectClient, path: str, content: bytes, *, reads_back: bool) -> None:
    """Create or replace a small file."""

    def once() -> None:
        stored = client.write(path, content, {})
        if reads_back and content and bytes(read_exactly(client, stored, 0, len(content))) != content:
            raise StorageError(f"{path!r} did not arrive in {client.describe()} as it was sent.")

    Requests().one(f"Writing {path!r}", once)


def delete(client: ObjectClient, paths: Iterable[str], requests: Requests | None = None) -> None:
    """Remove files, whatever they are by now; those already gone are fine.

    :raises FileKept: when the store does not let one go; the others are removed.
    """
    for each in delete_unchanged(client, (StoredFile(each, 0, "") for each in paths), requests):
        if each.outcome == "kept":
            raise FileKept(each.reason)


def delete_unchanged(
    client: ObjectClient, files: Iterable[StoredFile], requests: Requests | None = None
) -> list[Deletion]:
    """Remove files that have their etags, or any for those without, and then the folders that they leave empty."""
    ordered = sorted(files, key=lambda each: each.path)
    batches = [ordered[start : start + _DELETE_FILES] for start in range(0, len(ordered), _DELETE_FILES)]
    requests = requests or Requests(_DELETE_THREADS)
    done: list[Deletion] = []
    requests.each(lambda batch: _delete_batch(client, batch, requests), batches, done.extend)
    folders = {_folder(each.path) for each in ordered}
    while folders := folders - {""}:
        folders = {_folder(each) for each in _remove_folders(client, sorted(folders), requests)}
    return done


def _delete_batch(client: ObjectClient, files: Sequence[StoredFile], requests: Requests) -> list[Deletion]:
    left, done, attempts = files, list[Deletion](), 0

    def once() -> None:
        nonlocal left, attempts
        attempts += 1
        failed: list[tuple[StoredFile, AmlDataError]] = []
        for file, error in zip(left, client.delete(left), strict=True):
            outcome = "deleted" if error is None else _OUTCOMES.get(type(error))
            if error is not None and outcome is None:
                failed.append((file, error))
            elif outcome == "missing" and attempts > 1:  # an attempt whose answer was lost has deleted it
                done.append(Deletion(file, "deleted"))
            elif outcome is not None:
                done.append(Deletion(file, outcome, str(error) if outcome == "kept" else ""))
        left = [file for file, _ in failed]
        if failed:
            raise min((error for _, error in failed), key=lambda each: isinstance(each, StorageError))  # refusals first

    requests.retry("Deleting", once)
    return done


def _remove_folders(client: ObjectClient, folders: Sequence[str], requests: Requests) -> list[str]:
    """Remove those that are empty; which. Where nothing stands for the first few, nothing is looked for in place of the others."""
    gone: list[str] = []
    nothing: list[str] = []

    def remove(folder: str) -> tuple[str, bool | None]:
        return folder, requests.retry(f"Deleting {folder!r}", lambda: client.remove_folder(folder))

    def note(answer: tuple[str, bool | None]) -> None:
        folder, is_gone = answer
        if is_gone is None:
            nothing.append(folder)
        elif is_gone:
            gone.append(folder)

    first, others = folders[:_FIRST_FOLDERS], folders[_FIRST_FOLDERS:]
    requests.each(remove, first, note)
    if client.has_folders or len(nothing) < len(first):
        requests.each(remove, others, note)
    return gone


def delete_below(client: ObjectClient, path: str) -> None:
    """Remove a folder with all that is in it, or the file itself.

    :raises StorageError: when something stays: a listing that was damaged on its way may have named other files.
    """
    for _ in range(_ROUNDS):
        found = [each.path for each in client.list_files(path)]
        if not found:
            return
        delete(client, found)
    raise StorageError(f"{path!r} in {client.describe()} is not empty after its files were removed {_ROUNDS} times.")


def copy(
    client: ObjectClient,
    files: Sequence[tuple[StoredFile, str]],
    source: ObjectClient,
    progress: Progress,
) -> None:
    """Copy files on the server."""
    requests = Requests(SMALL_THREADS)

    def once(pair: tuple[StoredFile, str]) -> StoredFile:
        file, path = pair
        return requests.retry(f"Copying to {path!r}", lambda: client.copy(file, path, source))

    requests.each(once, list(files), lambda file: progress(1, file.size_bytes))


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
