"""Azure Blob storage beyond what every store does: refusals, marks of folders, damage on the way, names, accounts."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch
from urllib.parse import parse_qs

import httpx
import pytest
from azure.storage.blob import ContainerClient, ContainerSasPermissions, ContentSettings, generate_container_sas
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.manifest import read_local
from airflow_aml_data.core.storage import fetch, remote, retry, send
from airflow_aml_data.core.storage.azure import listing, rest
from airflow_aml_data.core.storage.azure.account import AzureAccount
from airflow_aml_data.core.storage.base import DatastoreConfig, Placement, StoredFile, open_storage
from airflow_aml_data.core.storage.remote import RemoteStorage
from airflow_aml_data.errors import (
    DataChanged,
    FileKept,
    FilesNotFound,
    InvalidPath,
    StorageError,
    StorageRefused,
    TransfersCancelled,
)
from tests.azurite import Azurite
from tests.storage.conformance import everything_in, listed, only, outcomes, quiet
from tests.storage.stores import sas_token

pytestmark = pytest.mark.slow


@pytest.fixture
def container(azurite: Azurite) -> str:
    name = f"c{uuid.uuid4().hex}"
    azurite.create_container(name)
    return name


@pytest.fixture
def azure(azurite: Azurite, container: str) -> ContainerClient:
    """Microsoft's own view of the container."""
    return ContainerClient.from_connection_string(azurite.connection_string(), container)


def opened(azurite: Azurite, container: str, account: str = "first", **signs_in) -> RemoteStorage:
    """A datastore; with the account's key unless told otherwise."""
    fields = {"login": account, "host": azurite.account_url(account)} | (
        signs_in or {"password": azurite.keys[account]}
    )
    connection = ConnectionFields(conn_id="wasb_test", conn_type="wasb", **fields)
    options = {"container_name": container, "conn_id": "wasb_test"}
    storage = open_storage(DatastoreConfig(name="store", kind="azure_blob", options=options, connection=connection))
    assert isinstance(storage, RemoteStorage)
    return storage


@pytest.fixture
def storage(azurite: Azurite, container: str) -> RemoteStorage:
    return opened(azurite, container)


def with_sas(azurite: Azurite, container: str, permissions: str) -> RemoteStorage:
    sas = generate_container_sas(
        "first",
        container,
        account_key=azurite.keys["first"],
        permission=ContainerSasPermissions.from_string(permissions),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    return opened(azurite, container, extra={"sas_token": sas})


@pytest.fixture
def sources(tmp_path: Path):
    def write(**contents: bytes) -> list[tuple[Path, str]]:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return [(tmp_path / name, name) for name in contents]

    return write


class TestRefusals:
    """One clear error that names connection and permission, and no credential."""

    def refused(self, storage: RemoteStorage, call) -> str:
        with pytest.raises(StorageRefused) as caught:
            call()
        text = str(caught.value)
        assert "wasb_test" in text
        assert "sig=" not in text
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return text

    def calls(self, storage: RemoteStorage, sources, tmp_path: Path):
        file = StoredFile("a", 1, "")
        return {
            "list": lambda: listed(storage),
            "read": lambda: storage.download([Placement(file, "a")], tmp_path / "to", quiet),
            "write": lambda: storage.upload(sources(a=b"x"), overwrite=True, progress=quiet),
            "delete": lambda: storage.delete_files(["a"]),
            "delete this version": lambda: storage.delete_unchanged([file]),
            "check": lambda: storage.check(),
        }

    def test_a_container_that_is_missing(self, azurite, sources, tmp_path):
        storage = opened(azurite, "missing")
        for call in self.calls(storage, sources, tmp_path).values():
            assert "There is no container 'missing'" in self.refused(storage, call)

    def test_a_wrong_key(self, azurite, container, sources, tmp_path):
        storage = opened(azurite, container, password=base64.b64encode(b"another").decode())
        for call in self.calls(storage, sources, tmp_path).values():
            assert "does not accept the connection's credential" in self.refused(storage, call)

    @pytest.mark.parametrize("permissions", ["l", "rl"])
    def test_a_permission_that_is_missing(self, azurite, container, azure, sources, tmp_path, permissions):
        azure.upload_blob("a", b"x")
        storage = with_sas(azurite, container, permissions)
        calls = self.calls(storage, sources, tmp_path)
        assert "only readable" in calls.pop("check")()
        for action, call in calls.items():
            if action[0] in permissions:
                call()
            else:
                assert f"No permission to {action.partition(' ')[0]} " in (text := self.refused(storage, call))
                assert "SAS permission" in text
                assert "Storage Blob Data" in text

    def test_an_account_that_does_not_answer(self, sources, monkeypatch):
        monkeypatch.setattr(retry, "_BUDGET_SECONDS", 0.0)
        monkeypatch.setattr(retry, "_ATTEMPTS", 1)
        storage = opened(Azurite("http://127.0.0.1:1"), "any")
        for call in (lambda: listed(storage), lambda: storage.upload(sources(a=b"x"), overwrite=True, progress=quiet)):
            with pytest.raises(StorageError, match=r"http://127.0.0.1:1/first does not answer .*wasb_test"):
                call()


def test_our_sas_token_is_the_one_that_azures_library_makes(monkeypatch):
    account = AzureAccount(name="first", url="https://first.blob.core.windows.net", account_key="c2VjcmV0")
    expiry = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    monkeypatch.setattr(rest, "_API_VERSION", _newest_version())
    theirs = generate_container_sas(
        "first", "box", account_key="c2VjcmV0", permission=ContainerSasPermissions.from_string("racwdl"), expiry=expiry
    )
    assert parse_qs(rest.container_sas(account, "box", expiry)) == parse_qs(theirs)


def _newest_version() -> str:
    theirs = generate_container_sas(
        "x", "x", account_key="c2VjcmV0", permission=ContainerSasPermissions(read=True), expiry=datetime(2027, 1, 1)
    )
    return parse_qs(theirs)["sv"][0]


class TestFolderMarks:
    """Hierarchical namespaces and older drivers keep folders as empty blobs."""

    @pytest.fixture(autouse=True)
    def folders(self, azure):
        for folder in ("d", "d/e", "d/e/f", "empty"):
            azure.upload_blob(folder, b"", metadata={"hdi_isfolder": "true"})
        azure.upload_blob("portal/", b"")
        azure.upload_blob("d/e/f/x", b"x")
        azure.upload_blob("d/zero", b"")

    def test_they_are_never_listed(self, storage):
        assert listed(storage) == ["d/e/f/x", "d/zero"]
        assert listed(storage, "d") == ["d/e/f/x", "d/zero"]
        assert listed(storage, "empty") == []

    def test_those_left_empty_go_with_their_content_and_the_others_stay(self, storage, azure):
        storage.delete_files(["d/e/f/x"])
        assert {each.name for each in azure.list_blobs()} == {"d", "d/zero", "empty", "portal/"}
        storage.delete_files(["d/zero"])
        assert {each.name for each in azure.list_blobs()} == {"empty", "portal/"}

    def test_taking_back_a_folder_removes_its_marks(self, storage, azure):
        storage.take_back("r", "o", "d", exclusive=True)
        assert {each.name for each in azure.list_blobs()} == {"empty", "portal/"}


class TestDeleting:
    """One request for many blobs, each with a condition and an authorization of its own."""

    @pytest.fixture(autouse=True)
    def fast(self, monkeypatch):
        monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)

    @pytest.fixture
    def answer(self, storage, monkeypatch):
        """Have every batch answered by a text for each of its parts; the server never sees it. Returns what was asked for."""

        def answer(reply: Callable[[int, str], str], status: int = 202) -> list[list[str]]:
            asked: list[list[str]] = []

            def handle(request: httpx.Request) -> httpx.Response:
                if request.method == "HEAD":
                    return httpx.Response(404 if "missing" in request.url.path else 200)
                if request.method == "DELETE":
                    asked.append([request.url.path.rpartition("/")[2]])
                    return httpx.Response(202)
                parts = re.findall(
                    r"Content-ID: (\d+)\r\n.*?DELETE \S+/(\w+) HTTP", request.content.decode(), re.DOTALL
                )
                asked.append([path for _, path in parts])
                text = "".join(f"--b\r\n{reply(int(number), path)}\r\n" for number, path in parts)
                return httpx.Response(
                    status, text=f"{text}--b--\r\n", headers={"Content-Type": "multipart/mixed; boundary=b"}
                )

            client = httpx.Client(transport=httpx.MockTransport(handle))
            monkeypatch.setattr(storage.client._container, "_connect", lambda: client)
            return asked

        return answer

    def part(self, number: int, status: str, *headers: str) -> str:
        return "\r\n".join(
            ["Content-Type: application/http", f"Content-ID: {number}", "", f"HTTP/1.1 {status}", *headers]
        )

    @pytest.mark.parametrize("sign_in", ["key", "container's SAS token", "account's SAS token"])
    def test_with_every_credential(self, azurite, container, azure, sign_in):
        storage = {
            "key": lambda: opened(azurite, container),
            "container's SAS token": lambda: with_sas(azurite, container, "rld"),
            "account's SAS token": lambda: opened(azurite, container, extra={"sas_token": sas_token(azurite)}),
        }[sign_in]()
        for name in ("a/ü +#?%41", "a/b", "changed"):
            azure.upload_blob(name, b"old")
        azure.get_blob_client("a/b").create_snapshot()
        files = list(storage.list_files(""))
        azure.upload_blob("changed", b"new", overwrite=True)
        with patch.object(storage.client._container, "request", wraps=storage.client._container.request) as request:
            done = storage.delete_unchanged(files)
        assert outcomes(done) == {"a/ü +#?%41": "deleted", "a/b": "deleted", "changed": "changed"}
        assert [each.name for each in azure.list_blobs(include=["snapshots"])] == ["changed"]
        methods = Counter(call.args[1] for call in request.call_args_list)
        assert (methods["POST"], methods["DELETE"]) == ((0, 3) if sign_in.startswith("account") else (1, 0))

    def test_a_leased_blob_is_kept_and_the_others_go(self, storage, azure):
        for name in "abc":
            azure.upload_blob(name, b"x")
        lease = azure.get_blob_client("b").acquire_lease()
        done = storage.delete_unchanged(storage.list_files(""))
        assert outcomes(done) == {"a": "deleted", "b": "kept", "c": "deleted"}
        (reason,) = (each.reason for each in done if each.reason)
        assert reason.startswith(f"The store keeps 'b' in {storage.client.describe()}: end its lease")
        assert "It answered 412 LeaseIdMissing" in reason
        with pytest.raises(FileKept, match="LeaseIdMissing"):
            storage.delete_files(["b"])
        lease.release()
        storage.delete_files(["b"])
        assert listed(storage) == []

    def test_what_the_service_says_of_each_blob(self, storage, answer):
        says = {
            "gone": ("202 Accepted",),
            "missing": ("404 The specified blob does not exist.", "x-ms-error-code: BlobNotFound"),
            "changed": ("412 Precondition Failed", "x-ms-error-code: ConditionNotMet"),
            "immutable": ("409 Conflict", "x-ms-error-code: BlobImmutableDueToPolicy"),
        }
        answer(lambda number, path: self.part(number, *says[path]))
        done = storage.delete_unchanged(StoredFile(each, 1, "e") for each in says)
        assert outcomes(done) == {"gone": "deleted", "missing": "missing", "changed": "changed", "immutable": "kept"}

    @pytest.mark.parametrize("status", ["503 Server Busy", "500 Internal Error", "429 Too Many Requests"])
    def test_only_what_failed_for_a_moment_is_asked_for_again(self, storage, answer, status):
        failing = {"b", "d"}

        def reply(number: int, path: str) -> str:
            if path in failing:
                failing.remove(path)
                return self.part(number, status, "Retry-After: 0")
            return self.part(number, "202 Accepted")

        asked = answer(reply)
        done = storage.delete_unchanged(StoredFile(each, 1, "e") for each in "abcd")
        assert asked == [["a", "b", "c", "d"], ["b", "d"]]
        assert outcomes(done) == dict.fromkeys("abcd", "deleted")

    @pytest.mark.parametrize("damage", ["Content-ID: 1", "Content-Id: x", "HTTP/1.1 302", "HTTP/1.1 403", "--b"])
    def test_an_answer_that_came_damaged_counts_for_nothing(self, storage, answer, damage):
        asked: list[list[str]] = []

        def reply(number: int, path: str) -> str:
            text = self.part(number, "202 Accepted")
            if len(asked) == 1 and number == 2:
                start, _, value = damage.partition(": ")
                text = re.sub(rf"{start}: \d" if value else r"HTTP/1\.1 202", damage, text, flags=re.IGNORECASE)
            return text

        asked = answer(reply)
        done = storage.delete_unchanged(StoredFile(each, 1, "e") for each in "abcd")
        assert len(asked) == 2
        assert outcomes(done) == dict.fromkeys("abcd", "deleted")

    @pytest.mark.parametrize("status", [400, 405, 501])
    def test_where_there_are_no_batches_blobs_go_one_by_one(self, storage, answer, status):
        asked = answer(lambda number, path: "", status)
        done = storage.delete_unchanged(StoredFile(each, 1, "e") for each in "abcd")
        assert sorted(asked) == [["a"], ["a", "b", "c", "d"], ["b"], ["c"], ["d"]]
        assert outcomes(done) == dict.fromkeys("abcd", "deleted")

    def test_a_part_that_is_forbidden_is_one_clear_error(self, storage, answer):
        answer(
            lambda number, path: self.part(number, "403 Forbidden", "x-ms-error-code: AuthorizationPermissionMismatch")
        )
        with pytest.raises(
            StorageRefused, match=r"No permission to delete 'a' in .*'wasb_test'.*SAS permission 'd' \(delete\)"
        ):
            storage.delete_unchanged([StoredFile("a", 1, "e")])


class TestListing:
    def test_in_pages_with_sizes_and_checksums(self, storage, azure, monkeypatch):
        monkeypatch.setattr(listing, "_PAGE", 3)
        for number in range(8):
            azure.upload_blob(f"p/{number}", str(number).encode())
        found = list(storage.list_files("p"))
        assert [each.path for each in found] == [f"p/{number}" for number in range(8)]
        assert found[5].checksum == "md5:" + hashlib.md5(b"5").hexdigest()

    def test_a_name_that_is_no_path_is_an_error_that_says_so(self, storage, azure):
        azure.upload_blob("a//b", b"x")
        with pytest.raises(InvalidPath, match="cannot be a path"):
            listed(storage)

    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1), min_size=1, max_size=3))
    @settings(max_examples=15)
    def test_every_name_round_trips_or_is_refused(self, azurite, names_in):
        container = f"c{uuid.uuid4().hex}"
        azurite.create_container(container)
        storage, path = opened(azurite, container), "/".join(names_in)
        try:
            storage.write_bytes(path, b"x")
        except InvalidPath:
            assert any(each in (".", "..") or re.search(r"[\x00-\x1f\x7f\\]", each) for each in names_in)
            return
        assert listed(storage) == [path]
        assert storage.read_bytes(path) == b"x"
        storage.delete_files([path])
        assert listed(storage) == []


class TestDamage:
    """Nothing that is not what it should be gets a name on this machine."""

    def download(self, storage: RemoteStorage, tmp_path: Path, *files: StoredFile) -> None:
        storage.download([Placement(each, each.path) for each in files], tmp_path / "to", quiet)

    @pytest.mark.parametrize("size", [10, fetch.RANGE_BYTES + 5])
    def test_content_with_another_checksum(self, storage, azure, tmp_path, size):
        azure.upload_blob("good", b"x" * size)
        azure.upload_blob("bad", b"x" * size).set_http_headers(
            ContentSettings(content_md5=bytearray(hashlib.md5(b"other").digest()))
        )
        with pytest.raises(DataChanged, match=r"'bad' in .*another checksum"):
            self.download(storage, tmp_path, *storage.list_files(""))
        assert set(everything_in(tmp_path / "to")) <= {"good"}

    @pytest.mark.parametrize("size", [10, fetch.RANGE_BYTES + 5])
    def test_a_file_that_was_replaced_since_it_was_listed(self, storage, azure, tmp_path, size):
        azure.upload_blob("a", b"x" * size)
        before = only(storage, "a")
        azure.upload_blob("a", b"y" * size, overwrite=True)
        with pytest.raises(DataChanged, match=r"'a' in .*was changed"):
            self.download(storage, tmp_path, before)
        azure.delete_blob("a")
        with pytest.raises(FilesNotFound, match="'a'"):
            self.download(storage, tmp_path, before)
        assert everything_in(tmp_path / "to") == []

    def test_one_that_is_replaced_while_it_is_fetched(self, storage, azure, tmp_path, monkeypatch):
        azure.upload_blob("a", b"x" * (3 * fetch.RANGE_BYTES))
        read, seen = storage.client.read, []

        def read_and_replace(file, start, length):
            seen.append(start)
            if len(seen) == 1:
                content = read(file, start, length)
                azure.upload_blob("a", b"y" * (3 * fetch.RANGE_BYTES), overwrite=True)
                return content
            return read(file, start, length)

        monkeypatch.setattr(fetch, "LARGE_THREADS", 1)
        monkeypatch.setattr(storage.client, "read", read_and_replace)
        with pytest.raises(DataChanged, match="'a'"):
            self.download(storage, tmp_path, only(storage, "a"))
        assert everything_in(tmp_path / "to") == []

    def test_a_file_that_is_there_already_is_not_fetched_again(self, storage, azure, tmp_path, monkeypatch):
        azure.upload_blob("a", b"small")
        azure.upload_blob("b", b"other")
        self.download(storage, tmp_path, *storage.list_files(""))
        (tmp_path / "to/b").write_bytes(b"wrong")
        read, fetched = storage.client.read, []
        monkeypatch.setattr(storage.client, "read", lambda file, *of: fetched.append(file.path) or read(file, *of))
        self.download(storage, tmp_path, *storage.list_files(""))
        assert fetched == ["b"]
        assert (tmp_path / "to/b").read_bytes() == b"other"


def test_a_cancelled_task_ends_its_transfers_and_can_still_take_back(storage, tmp_path, monkeypatch):
    folder = storage.staging_folder("r", "o", tmp_path)
    for number in range(200):
        (folder / str(number)).write_bytes(b"x")
    files = read_local((str(each), str(folder / str(each))) for each in range(200))
    write, written = storage.client.write, []

    def write_and_cancel(*each):
        written.append(each)
        if len(written) == 20:
            retry.cancel()
        return write(*each)

    monkeypatch.setattr(storage.client, "write", write_and_cancel)
    try:
        with pytest.raises(TransfersCancelled):
            storage.publish("r", "o", folder, files, "d", overwrite=False, exclusive=False, progress=quiet)
        assert len(written) < 200
        storage.take_back("r", "o", "d", exclusive=False)
    finally:
        retry.begin()
    assert listed(storage) == []
    assert list(storage.client.list_files(".aml_data")) == []


class TestPublishing:
    def test_a_failure_half_way_restores_everything(self, storage, azure, tmp_path, monkeypatch):
        azure.upload_blob("d/b", b"old", metadata={"owner": "them"})
        folder = storage.staging_folder("r", "o", tmp_path)
        for name in "ab":
            (folder / name).write_text("new")
        files = read_local((each, str(folder / each)) for each in "ab")
        write = storage.client.write

        def refuses_a(path, *more):
            if path == "d/a":
                raise StorageRefused("no")
            return write(path, *more)

        monkeypatch.setattr(storage.client, "write", refuses_a)
        with pytest.raises(StorageRefused):
            storage.publish("r", "o", folder, files, "d", overwrite=True, exclusive=False, progress=quiet)
        assert {each.name for each in azure.list_blobs()} == {"d/b"}
        assert azure.download_blob("d/b").readall() == b"old"
        assert azure.get_blob_client("d/b").get_blob_properties().metadata == {"owner": "them"}

    def test_another_machine_takes_back_what_a_killed_one_left(self, azurite, container, storage, azure, tmp_path):
        azure.upload_blob("d/a", b"old")
        folder = storage.staging_folder("r", "o", tmp_path)
        (folder / "a").write_text("new")
        files = read_local([("a", str(folder / "a"))])
        storage.publish("r", "o", folder, files, "d", overwrite=True, exclusive=False, progress=quiet)
        opened(azurite, container).take_back("r", "o", "d", exclusive=False)
        assert {each.name: azure.download_blob(each.name).readall() for each in azure.list_blobs()} == {"d/a": b"old"}

    def test_a_journal_that_was_never_written_whole_stands_for_nothing(self, storage, azure, monkeypatch):
        monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
        azure.upload_blob(".aml_data/staging/r/o.json", b"half a jour")
        azure.upload_blob("d/a", b"theirs")
        storage.take_back("r", "o", "d", exclusive=False)
        assert {each.name for each in azure.list_blobs()} == {"d/a"}


class TestCopy:
    @pytest.fixture
    def elsewhere(self, azurite):
        def make(account: str) -> RemoteStorage:
            name = f"c{uuid.uuid4().hex}"
            azurite.create_container(name, account)
            return opened(azurite, name, account)

        return make

    @pytest.mark.parametrize("account", ["first", "second"])
    def test_to_another_container(self, storage, azure, elsewhere, monkeypatch, account):
        contents = {"d/ü %41": b"one", "d/b": b"two" * fetch.RANGE_BYTES}
        for path, content in contents.items():
            azure.upload_blob(path, content)
        other, passed = elsewhere(account), []
        monkeypatch.setattr(
            remote, "send", lambda *args, send=remote.send, **more: passed.append(1) or send(*args, **more)
        )
        moved = []
        other.copy(
            [(each, f"copy/{each.path}") for each in storage.list_files("d")],
            storage,
            progress=lambda *each: moved.append(each),
        )
        assert {each: other.read_bytes(each) for each in listed(other)} == {
            f"copy/{path}": each for path, each in contents.items()
        }
        assert bool(passed) == (account != "first")  # inside one account the server copies
        assert [sum(each) for each in zip(*moved, strict=True)] == [2, sum(map(len, contents.values()))]

    def test_of_what_was_changed_since_is_refused(self, storage, azure, elsewhere):
        azure.upload_blob("a", b"old")
        before = only(storage, "a")
        azure.upload_blob("a", b"new", overwrite=True)
        with pytest.raises(DataChanged, match="a"):
            elsewhere("first").copy([(before, "b")], storage, progress=quiet)


@pytest.mark.parametrize("change", [1, -1])
def test_a_file_written_to_while_it_is_sent_is_an_error_before_it_is_stored(
    storage: RemoteStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    local = tmp_path / "log.txt"
    local.write_bytes(b"x" * 100)
    measured = os.stat

    def change_it_once_it_is_measured(path, *args, **options):
        result = measured(path, *args, **options)
        if str(path) == str(local):
            os.truncate(local, 100 + change)
        return result

    monkeypatch.setattr(send.os, "stat", change_it_once_it_is_measured)
    with pytest.raises(DataChanged, match=r"log\.txt was 100 bytes long"):
        send.send(storage.client, [(str(local), "logs/log.txt")], {}, quiet, reads_back=False)
    assert listed(storage) == []
