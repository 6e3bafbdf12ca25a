"""The bench's blob server against real clients, and each bench of transfers with a few files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError
from azure.storage.blob import BlobBlock, ContainerClient
from obstore.store import AzureStore

from dev.bench import many_files, mounts, retention, transfers_azurite, transfers_far
from dev.bench.blob_limit import limits
from dev.bench.blob_server import Server, running_server
from dev.bench.measured import measure
from dev.bench.report import Report
from dev.bench.transfer_cases import ALL, Case, Store, compare
from dev.bench.transfers import KEY

pytestmark = pytest.mark.slow

TINY = Case(name="5 files", sizes=[0, 1, 4096, 70_000, 9_000_000])


@pytest.fixture
def container() -> Iterator[ContainerClient]:
    with running_server() as server:
        client: ContainerClient = _store(server).container("data")
        client.create_container()
        yield client


def _store(server: Server) -> Store:
    return Store(url=server.url, key=KEY)


def test_it_gives_back_what_microsofts_library_puts(container: ContainerClient) -> None:
    content = os.urandom(9 << 20)
    whole = container.upload_blob("a folder/whole & all.bin", content, metadata={"of": "me"})
    blocks = container.get_blob_client("blocks")
    for number in range(3):
        blocks.stage_block(f"{number:04}", content[number << 20 : (number + 1) << 20])
    blocks.commit_block_list([BlobBlock(f"{number:04}") for number in (2, 0, 1)])

    assert whole.download_blob(max_concurrency=4).readall() == content
    assert whole.download_blob(offset=5, length=10).readall() == content[5:15]
    assert whole.get_blob_properties().metadata == {"of": "me"}
    reordered = content[2 << 20 : 3 << 20] + content[: 2 << 20]
    assert blocks.download_blob().readall() == reordered
    assert blocks.download_blob(offset=(1 << 20) - 3, length=6).readall() == reordered[(1 << 20) - 3 : (1 << 20) + 3]


def test_it_lists_in_pages_and_folders(container: ContainerClient) -> None:
    for name in ("b", "a/1", "a/2", "a/deep/3", "c & d"):
        container.upload_blob(name, name.encode())

    pages = container.list_blobs(results_per_page=2).by_page()
    assert [[each.name for each in page] for page in pages] == [["a/1", "a/2"], ["a/deep/3", "b"], ["c & d"]]
    assert [each.name for each in container.walk_blobs()] == ["a/", "b", "c & d"]
    assert [each.size for each in container.list_blobs(name_starts_with="a/")] == [3, 3, 8]


def test_it_copies_and_deletes(container: ContainerClient) -> None:
    source = container.upload_blob("source", b"content")
    container.get_blob_client("copy").start_copy_from_url(source.url)
    answers = container.delete_blobs("source", "missing", raise_on_any_failure=False)

    assert [each.status_code for each in answers] == [202, 404]
    assert [each.name for each in container.list_blobs()] == ["copy"]
    changed = {"name": "copy", "etag": "0x1", "match_condition": MatchConditions.IfNotModified}
    assert [each.status_code for each in container.delete_blobs(changed, raise_on_any_failure=False)] == [412]
    with pytest.raises(ResourceModifiedError):
        container.delete_blob("copy", etag="0x1", match_condition=MatchConditions.IfNotModified)
    assert container.download_blob("copy").readall() == b"content"


def test_it_refuses_what_the_service_refuses(container: ContainerClient) -> None:
    blob = container.upload_blob("file", b"first")
    etag = blob.get_blob_properties().etag
    blob.upload_blob(b"second", overwrite=True)

    with pytest.raises(ResourceModifiedError):
        blob.download_blob(etag=etag, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(HttpResponseError, match="BlobAlreadyExists"):
        blob.upload_blob(b"third")
    with pytest.raises(HttpResponseError, match="BlobNotFound"):
        container.download_blob("missing")
    assert not _sibling(container, "nothing").exists()


def _sibling(container: ContainerClient, name: str) -> ContainerClient:
    return ContainerClient(container.primary_endpoint.rpartition("/")[0], name)


def test_it_serves_obstore_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(20_000_000)
    with transfers_far.tls_store() as store:
        monkeypatch.setenv("SSL_CERT_FILE", str(store.trusted))
        store.container("data").create_container()
        client = AzureStore("data", account_name="bench", account_key=KEY, endpoint=store.url)
        obstore.put(client, "large", content, use_multipart=True, chunk_size=1 << 20)
        obstore.put(client, "small", b"x")

        assert obstore.get(client, "large").bytes() == content
        assert obstore.get_range(client, "large", start=1_000_000, length=2_000_000) == content[1_000_000:3_000_000]
        assert [each["path"] for each in obstore.list(client).collect()] == ["large", "small"]
        obstore.delete(client, ["large", "small"])
        assert obstore.list(client).collect() == []


def test_every_contender_moves_the_files_both_ways() -> None:
    report = Report()
    with running_server() as server:
        compare(report, "", _store(server), TINY, runs=1, limits=limits(server.url, TINY.sizes))

    names = [row.name for row in report.rows]
    assert [f"5 files down (theirs: {each})" in names for each in ALL[1:]] == [True] * 5
    assert [row for row in report.rows if row.ours <= 0 or row.theirs <= 0] == []


def test_the_other_benches_run(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Case(name="2 files", sizes=[10, 20], contenders=("ours", "azcopy"))
    monkeypatch.setattr(transfers_far, "CASES", (small,))
    monkeypatch.setattr(transfers_far, "FAST", small.contenders)
    monkeypatch.setattr(transfers_azurite, "CASES", (small,))
    monkeypatch.setattr(many_files, "FILES", 30)
    monkeypatch.setattr(transfers_far, "MEMORY_BYTES", 0)
    report = Report()
    for bench in (transfers_far, transfers_azurite, many_files):
        bench.run(report)

    moved = ("5 ms of latency, 2 files", "TLS, 2 files", "Azurite, 2 files", "30 x 16 B")
    assert {row.name for row in report.rows if not row.name.startswith(" ")} == {
        "30 blobs listed (theirs: azure_storage_blob)",
        *(f"{each} {direction} (theirs: azcopy)" for each in moved for direction in ("down", "up")),
    }


def test_retention_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OUTPUTS", "LISTED", "SWEPT"):
        monkeypatch.setattr(retention, name, 1000)
    report = Report()
    retention.run(report)

    assert [row.name.partition(" (")[0] for row in report.rows if not row.name.startswith(" ")] == [
        "plan over 1,000 outputs, SQLite",
        "plan over 1,000 outputs, PostgreSQL",
        "1,000 blobs compared with the catalog",
        *["1,000 blobs swept"] * 2,
    ]


def test_mounted_files_are_read_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Case(name="40 files", sizes=[50_000] * 40)
    monkeypatch.setattr(mounts, "CASES", {"small": small, "large": TINY})
    monkeypatch.setattr(mounts, "MEMORY_BYTES", 0)
    report = Report()
    mounts.run(report)

    moved = next(row for row in report.rows if row.name == "  of them for reading (theirs: all)")
    assert moved.theirs == 2
    assert 0.5 <= moved.ours <= 1


def test_a_process_is_measured_with_its_children(tmp_path: Path) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(300 << 20); x[:] = b\"1\" * len(x)'])"
    took, printed = measure([sys.executable, "-c", f"{script}; print('done')"])

    assert printed == "done\n"
    assert took.memory_mb > 300
    assert took.cpu_seconds > 0


def test_a_process_that_fails_fails_the_bench() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        measure([sys.executable, "-c", "raise SystemExit('no such thing')"])
