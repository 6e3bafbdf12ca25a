"""What has no room on the disk is refused before its first byte."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path

import pytest

from airflow_aml_data import Dataset
from airflow_aml_data.core.room import require_room, size_of
from airflow_aml_data.core.storage.base import Placement, StoredFile
from airflow_aml_data.errors import StorageError
from tests.core.steps import in_child

_CLONE_NEWNS, _PRIVATE = 0x20000, 1 << 18


def test_files_named_twice_need_room_once():
    file = Placement(StoredFile("a", 7, "e"), "a")
    assert size_of([file, file, file._replace(target="b")]) == 14


def test_what_fits_is_no_error(tmp_path):
    require_room(tmp_path / "not" / "there" / "yet", 1, "This")


def test_what_does_not_fit_says_what_is_needed_and_what_is_free(tmp_path):
    with pytest.raises(
        StorageError, match=r"^\[Errno 28\] This needs 1,000,000,000,000,000,000 bytes in .*free there"
    ) as error:
        require_room(tmp_path, 10**18, "This")
    assert error.value.errno == errno.ENOSPC


def test_a_download_to_a_full_disk_writes_nothing(datastore, put, tmp_path):
    put({"a.bin": b"x" * 300_000, "b.bin": b"x" * 300_000})
    disk = tmp_path / "disk"
    disk.mkdir()

    def download_to_a_small_disk() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_CLONE_NEWNS) == 0
        assert libc.mount(None, b"/", None, 16384 | _PRIVATE, None) == 0
        assert libc.mount(b"tmpfs", bytes(disk), b"tmpfs", 0, b"size=512k") == 0
        with pytest.raises(StorageError, match="600,000 bytes"):
            Dataset.File.from_files((datastore, "*.bin")).download(disk / "there")
        assert list(Path(disk).iterdir()) == []
        Dataset.File.from_files((datastore, "a.bin")).download(disk / "there")

    assert in_child(download_to_a_small_disk) == 0
