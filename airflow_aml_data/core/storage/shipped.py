"""A datastore as an Azure ML job sees it: the files that its step reads, as the worker has listed them, where Azure ML shows them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from airflow_aml_data.core.storage.base import DatastoreConfig, Placement, Progress, StoredFile, check_options
from airflow_aml_data.errors import FilesNotFound, NotOffered


def open_shipped(config: DatastoreConfig) -> ShippedStorage:
    """The datastore that a job was told of."""
    check_options(config, {"folders": dict, "files": list, "contents": dict})
    options = config.options
    return ShippedStorage(
        config.name, options["folders"], [StoredFile(*each) for each in options["files"]], options["contents"]
    )


class ShippedStorage:
    """Files to read, and nothing else; see :class:`.FileSource` for what each call does.

    :param folders: Path on the datastore to the local folder, or file, that shows it.
    :param contents: Text of small files that are not among ``files``.
    """

    is_remote = False

    def __init__(
        self, name: str, folders: Mapping[str, str], files: Sequence[StoredFile], contents: Mapping[str, str]
    ) -> None:
        self.name, self._folders, self._contents = name, folders, contents
        self._files = {each.path: each for each in files}

    def __getattr__(self, name: str) -> object:
        raise NotOffered(
            f"{name} of datastore {self.name!r} is not there in an Azure ML job, which reads the inputs of its step and writes its "
            "outputs. Declare what it needs as an input, and what it makes as an output."
        )

    def list_files(self, path: str) -> Iterator[StoredFile]:
        below = f"{path}/" if path else ""
        return (each for each in self._files.values() if each.path == path or each.path.startswith(below))

    def read_bytes(self, path: str) -> bytes:
        if path in self._contents:
            return self._contents[path].encode()
        if path not in self._files:
            raise FilesNotFound(f"{path!r} of datastore {self.name!r} is not among the inputs of this step.")
        return self._local(path).read_bytes()

    def download(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        for each in placements:
            target = folder / each.target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._local(each.file.path), target)
            progress(1, each.file.size_bytes)

    def mount(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        for each in placements:
            target = folder / each.target
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(self._local(each.file.path))
            progress(1, each.file.size_bytes)

    def _local(self, path: str) -> Path:
        for shown, local in self._folders.items():
            if path == shown:
                return Path(local)
            if not shown or path.startswith(f"{shown}/"):
                return Path(local, path.removeprefix(shown).lstrip("/"))
        raise FilesNotFound(f"{path!r} of datastore {self.name!r} is not among the inputs of this step.")
