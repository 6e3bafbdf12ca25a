"""A datastore on the other side of a network, made of single requests."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType

from airflow_aml_data.core.identity import RESERVED_FOLDER
from airflow_aml_data.core.manifest import LocalFile
from airflow_aml_data.core.storage import retry, undo
from airflow_aml_data.core.storage.base import Deletion, Placement, Progress, Storage, StoredFile, Survey, check_inside
from airflow_aml_data.core.storage.batches import in_batches
from airflow_aml_data.core.storage.client import ObjectClient
from airflow_aml_data.core.storage.fetch import fetch, is_whole, read_exactly, read_whole
from airflow_aml_data.core.storage.files import partial_folder
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.core.storage.send import send
from airflow_aml_data.errors import (
    FilesExist,
    FilesNotFound,
    InvalidPath,
    OutputConflict,
    StorageError,
    StorageRefused,
    UserError,
)

log = logging.getLogger(__name__)

_NO_METADATA: Mapping[str, str] = MappingProxyType({})
_FEW = 16
_COPY_FILES = 1000
_COPY_BYTES = 1024 * 1024 * 1024


class RemoteStorage:
    """Files in a container or share; see :class:`.Storage` for what each call does.

    :param client: How to reach it.
    :param reads_back: Compare what is written with what arrived; None: where the connection does not guard it.
    """

    is_remote = True

    def __init__(self, name: str, client: ObjectClient, *, reads_back: bool | None = None) -> None:
        self.name = name
        self.client = client
        self.reads_back = not client.is_encrypted if reads_back is None else reads_back

    def __repr__(self) -> str:
        return f"RemoteStorage({self.name!r}, {self.location!r})"

    @property
    def location(self) -> str:
        return self.client.location

    def check(self) -> str:
        """Say whether the files can be listed and written; a small file is written and removed."""
        requests = Requests(budget_seconds=0)
        requests.one("Checking", self.client.check)
        probe = f"{RESERVED_FOLDER}/check/{uuid.uuid4().hex}"
        try:
            requests.one("Checking", lambda: self.client.write(probe, b"", _NO_METADATA))
            undo.delete(self.client, [probe], requests)
        except StorageRefused as error:
            return f"{self.name} ({self.client.describe()}, only readable: {error})"
        return f"{self.name} ({self.client.describe()}, writable)"

    def list_files(self, path: str) -> Iterator[StoredFile]:
        check_inside(path, self.name)
        found = self.client.list_files(path)
        return found if path else (each for each in found if not each.path.startswith(f"{RESERVED_FOLDER}/"))

    def survey(self, path: str) -> Iterator[Survey]:
        return self.client.survey(check_inside(path, self.name, reserved=True))

    def list_reserved(self, path: str = RESERVED_FOLDER) -> Iterator[StoredFile]:
        return self.client.list_files(check_inside(path, self.name, reserved=True))

    def read_bytes(self, path: str) -> bytes:
        file = self._find(check_inside(path, self.name, reserved=True))
        requests = Requests()
        return requests.one(path, lambda: bytes(read_whole(self.client, requests, file)))

    def read_range(self, file: StoredFile, start: int, length: int) -> bytes:
        check_inside(file.path, self.name)
        length = min(length, file.size_bytes - start)
        if length <= 0:
            return b""
        requests, what = Requests(), f"Reading {file.path!r}"
        if length == file.size_bytes:
            return requests.one(what, lambda: bytes(read_whole(self.client, requests, file)))
        return requests.one(what, lambda: bytes(read_exactly(self.client, file, start, length)))

    def write_bytes(self, path: str, content: bytes) -> None:
        check_inside(path, self.name, reserved=True)
        undo.write(self.client, path, content, reads_back=self.reads_back)

    def delete_files(self, paths: Iterable[str]) -> None:
        with retry.clearing():
            undo.delete(self.client, [check_inside(each, self.name, reserved=True) for each in paths])

    def delete_unchanged(self, files: Iterable[StoredFile]) -> list[Deletion]:
        inside = [each._replace(path=check_inside(each.path, self.name, reserved=True)) for each in files]
        return undo.delete_unchanged(self.client, inside)

    def download(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fetch(self.client, placements, folder, progress)

    def mount(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        self.download(placements, folder, progress)

    def mount_folder(self, path: str, folder: Path) -> bool:
        return False

    def upload(self, files: Sequence[tuple[Path, str]], *, overwrite: bool, progress: Progress) -> None:
        wanted = [(str(local), check_inside(path, self.name)) for local, path in files]
        self._check_names(path for _, path in wanted)
        if not overwrite:
            there = self._existing([path for _, path in wanted])
            for local, path in wanted:
                if path in there and not self._is_same(there[path], local):
                    raise FilesExist(
                        f'File "{path}" already exists on datastore {self.name!r} and is different. Set overwrite=True to '
                        "overwrite it, or choose an empty target path."
                    )
            wanted = [(local, path) for local, path in wanted if path not in there]
        send(self.client, wanted, _NO_METADATA, progress, reads_back=self.reads_back)

    def copy(self, files: Sequence[tuple[StoredFile, str]], source: Storage, *, progress: Progress) -> None:
        self._check_names(check_inside(path, self.name) for _, path in files)
        if isinstance(source, RemoteStorage) and source.client.account == self.client.account:
            undo.copy(self.client, files, source.client, progress)
            return
        for batch in in_batches(files, lambda each: each[0].size_bytes, _COPY_FILES, _COPY_BYTES):
            with tempfile.TemporaryDirectory() as temporary, partial_folder(Path(temporary)) as folder:
                source.download([Placement(file, path) for file, path in batch], folder, lambda *_: None)
                local = [(str(folder / path), path) for _, path in batch]
                send(self.client, local, _NO_METADATA, progress, reads_back=self.reads_back)

    def staging_folder(self, step_run_id: str, name: str, scratch: Path) -> Path:
        folder = scratch / "outputs" / name
        folder.mkdir(parents=True)
        return folder

    def publish(
        self,
        step_run_id: str,
        name: str,
        staged: Path,
        files: Sequence[LocalFile],
        destination: str,
        *,
        overwrite: bool,
        exclusive: bool,
        progress: Progress,
    ) -> list[StoredFile]:
        check_inside(destination, self.name)
        local = [
            (str(staged / each.path) if each.path else str(staged), _join(destination, each.path)) for each in files
        ]
        self._check_names(path for _, path in local)
        there = self._existing([path for _, path in local])
        if there and not overwrite:
            raise OutputConflict(
                f"{len(there)} of {len(files)} files are at the destination {destination!r} on datastore {self.name!r} already, the "
                f"first is {min(there)!r}, and overwrite is False. Use as_upload(overwrite=True), or put {{run-id}} in the destination."
            )
        journal = undo.Journal(self.client, step_run_id, name)
        try:
            if not exclusive:
                journal.begin([path for _, path in local], list(there.values()))
            metadata = _NO_METADATA if exclusive else journal.mark
            return send(self.client, local, metadata, progress, reads_back=self.reads_back)
        except (UserError, StorageError):
            try:
                self.take_back(step_run_id, name, destination, exclusive=exclusive)
            except (UserError, StorageError) as error:  # who gave the output up tries again
                log.warning("What was published of output %r could not be removed: %s", name, error)
            raise

    def take_back(self, step_run_id: str, name: str, destination: str, *, exclusive: bool) -> None:
        check_inside(destination, self.name)
        journal = undo.Journal(self.client, step_run_id, name)
        with retry.clearing():
            retry.settle()
            if exclusive:
                undo.delete_below(self.client, destination)
            journal.undo()
            journal.drop()

    def drop_staging(self, step_run_id: str, name: str) -> None:
        with retry.clearing():
            undo.Journal(self.client, step_run_id, name).drop()

    def output_folder(self, path: str) -> Path | None:
        return None

    def _find(self, path: str) -> StoredFile:
        found = next(iter(self.client.list_files(path)), None)
        if found is None or found.path != path:
            raise FilesNotFound(f"{path!r} is not on datastore {self.name!r} any more.")
        return found

    def _check_names(self, paths: Iterable[str]) -> None:
        """Refuse what the store cannot keep, before the first byte is on its way."""
        keys: dict[str, str] = {}
        for path in paths:
            self.client.check_name(path)
            other = keys.setdefault(self.client.name_key(path), path)
            if other != path:
                raise InvalidPath(
                    f"{other!r} and {path!r} are the same file in {self.client.describe()}, which does not tell upper case from lower "
                    "case. Rename one of them."
                )

    def _existing(self, paths: Sequence[str]) -> dict[str, StoredFile]:
        """Which of the paths are files already."""
        if len(paths) > _FEW:
            found = self.client.list_files(_common_folder(paths))
        else:
            found = chain.from_iterable(islice(self.client.list_files(each), 1) for each in paths)
        wanted = {self.client.name_key(each): each for each in paths}
        there = ((wanted.get(self.client.name_key(each.path)), each) for each in found)
        return {path: each._replace(path=path) for path, each in there if path is not None}

    def _is_same(self, file: StoredFile, local: str) -> bool:
        """Whether a stored file has the content of a local one."""
        if file.checksum:
            return is_whole(file, local)
        if Path(local).stat().st_size != file.size_bytes:
            return False
        with tempfile.TemporaryDirectory() as temporary:
            fetch(self.client, [Placement(file, "file")], Path(temporary), lambda *_: None)
            with open(local, "rb") as one, open(f"{temporary}/file", "rb") as other:  # noqa: PTH123
                return hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()


def _common_folder(paths: Sequence[str]) -> str:
    """The deepest folder that holds all of the paths."""
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return "/".join(first[:same])


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}".strip("/") if name else folder
