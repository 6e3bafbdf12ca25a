"""Azure Files: what it does unlike other stores, every way to sign in, and what its refusals become."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from airflow_aml_data.core.manifest import read_local
from airflow_aml_data.core.storage import retry, undo
from airflow_aml_data.core.storage.azure import tokens
from airflow_aml_data.core.storage.azure.account import AzureAccount
from airflow_aml_data.core.storage.azure.fileshare import FileShareClient
from airflow_aml_data.core.storage.azure.share import Share
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.core.storage.remote import RemoteStorage
from airflow_aml_data.errors import (
    DataChanged,
    FileKept,
    FilesExist,
    FilesNotFound,
    InvalidPath,
    OutputConflict,
    StorageError,
    StorageRefused,
)
from tests.azure_files import AzureFiles, running_azure_files
from tests.azure_files.shares import Entry, Failure
from tests.azurite.certificates import Certificates
from tests.storage.conformance import quiet

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


@pytest.fixture
def client(azure_files: AzureFiles) -> FileShareClient:
    azure_files.create_share("files")
    return sign_in(azure_files, account_key=azure_files.keys["first"])


def sign_in(files: AzureFiles, share: str = "files", **access: Any) -> FileShareClient:
    account = AzureAccount(name="first", url=files.account_url(), conn_id="my_share", **access)
    return FileShareClient(Share(account, share))


def paths(client: FileShareClient, prefix: str = "") -> list[str]:
    return sorted(each.path for each in client.list_files(prefix))


# -- files and folders


def test_a_file_is_under_its_name_only_when_it_is_whole(azure_files, client, tmp_path):
    client.write("d/a", b"old", {"k": "v"})
    (tmp_path / "large").write_bytes(b"x" * (9 * MIB))
    for write in (
        lambda: client.write_large("d/a", tmp_path / "large", 9 * MIB, {}),
        lambda: client.write("d/a", b"new", {}),
    ):
        azure_files.fail("PUT", "range", Failure(403, "AuthorizationPermissionMismatch"))
        with pytest.raises(StorageRefused):
            write()

    (file,) = client.list_files("")  # nothing of the attempts is left
    assert bytes(client.read(file, 0, 3)) == b"old"
    assert client.metadata("d/a") == {"k": "v"}
    assert client.metadata("d") is client.metadata("d/b") is client.metadata("e/b") is None


def test_many_threads_make_the_same_folders(azure_files):
    for attempt in range(8):
        azure_files.create_share(f"files{attempt}")
        client = sign_in(azure_files, f"files{attempt}", account_key=azure_files.keys["first"])
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number, client=client: client.write(f"a/b/c/{number}", b"x", {}), range(8)))
        assert len(paths(client)) == 8


def test_what_is_written_is_what_is_listed(client, tmp_path):
    (tmp_path / "large").write_bytes(bytes(range(256)) * 4 * 9001)
    size = 256 * 4 * 9001
    small, large = client.write("d/s", b"abc", {}), client.write_large("d/l", tmp_path / "large", size, {"k": "v"})
    assert {each.path: (each.size_bytes, each.etag) for each in client.list_files("d")} == {
        each.path: (each.size_bytes, each.etag) for each in (small, large)
    }
    assert small.checksum == "md5:900150983cd24fb0d6963f7d28e17f72"
    (found,) = client.list_files("d/s")
    assert found.checksum == small.checksum
    assert bytes(client.read(large, 5 * MIB, 1000)) == (tmp_path / "large").read_bytes()[5 * MIB :][:1000]
    assert client.metadata("d/l") == {"k": "v"}


def test_one_range_of_a_large_file_is_sent_again(azure_files, client, tmp_path):
    (tmp_path / "large").write_bytes(b"x" * (9 * MIB))
    azure_files.fail("PUT", "range", Failure(503, "ServerBusy"))
    client.write_large("a", tmp_path / "large", 9 * MIB, {})
    assert [each.rpartition(" ")[2] for each in azure_files.requests].count("range") == 4


def test_folders_are_made_once_and_go_with_their_last_file(azure_files, client):
    client.write("a/b/c/1", b"", {})
    client.write("a/b/c/2", b"", {})
    client.write("a/3", b"", {})
    made = [each.removeprefix("PUT /first/files/") for each in azure_files.requests if each.startswith("PUT")]
    assert [made.count(each) for each in ("a", "a/b", "a/b/c")] == [1, 2, 2]  # again after those above it
    undo.delete(client, ["a/b/c/1", "a/b/c/2", "a/b/c/missing", "x/y"])
    assert set(azure_files.shares.share("first", "files")) == {"", ".aml_data", ".aml_data/partial", "a", "a/3"}
    client.write("a/b/c/1", b"again", {})
    assert paths(client) == ["a/3", "a/b/c/1"]


def test_a_folder_that_another_process_removed_is_made_again_when_ours_retries(azure_files, client):
    client.write("d/a", b"", {})
    undo.delete(sign_in(azure_files, account_key=azure_files.keys["first"]), ["d/a"])
    with pytest.raises(StorageError, match=r"'d/b' in share 'files' .* was removed while"):
        client.write("d/b", b"", {})
    client.write("d/b", b"", {})
    assert paths(client) == ["d/b"]


def test_a_file_that_somebody_holds_is_kept_and_one_that_is_used_for_a_moment_goes(azure_files, client, monkeypatch):
    monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
    files = [client.write("a", b"", {})]
    azure_files.fail("DELETE", "", Failure(412, "LeaseIdMissing"))
    (kept,) = undo.delete_unchanged(client, files)
    assert (kept.outcome, paths(client)) == ("kept", ["a"])
    assert "connection 'my_share': end its lease, or make it writable. It answered 412 LeaseIdMissing" in kept.reason
    azure_files.fail("DELETE", "", Failure(412, "LeaseIdMissing"))
    with pytest.raises(FileKept, match="LeaseIdMissing"):
        undo.delete(client, ["a"])
    azure_files.fail("DELETE", "", Failure(409, "SharingViolation"))
    assert [each.outcome for each in undo.delete_unchanged(client, files)] == ["deleted"]


def test_a_listing_goes_through_pages_and_folders(azure_files, client):
    shares = azure_files.shares
    for number in range(5001):
        shares.put("first", "files", Entry(f"f{number:05}", bytearray()), replaces=True)
    client.write("g/h/i", b"", {})
    assert paths(client) == [f"f{number:05}" for number in range(5001)] + ["g/h/i"]
    assert sum(each.endswith("list") for each in azure_files.requests) == 4  # the root twice, g, h


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a:b/c", "':'"),
        ("a/b\x07", "'\\\\x07'"),
        ("a/b ", "ends with ' '"),
        ("a./b", "ends with '.'"),
        ("n" * 256, "256 characters"),
        ("n/" * 251 + "n", "252 segments"),
        ("a//b", "empty name"),
    ],
)
def test_names_that_it_cannot_keep_are_refused_before_anything_is_sent(azure_files, client, tmp_path, path, why):
    (tmp_path / "f").write_bytes(b"x")
    sent = len(azure_files.requests)
    for call in (
        lambda: client.write(path, b"x", {}),
        lambda: client.write_large(path, tmp_path / "f", 1, {}),
        lambda: client.copy(StoredFile("a", 1, ""), path, client),
    ):
        with pytest.raises(InvalidPath, match=why):
            call()
    assert len(azure_files.requests) == sent


# -- versions


def test_a_file_that_changed_is_not_read_and_not_copied(client):
    old = client.write("a", b"four", {})
    client.write("a", b"4", {})
    for call in (
        lambda: client.read(old, 0, 1),
        lambda: client.read(old._replace(etag=""), 2, 2),  # beyond its end
        lambda: client.read(old._replace(size_bytes=0), 0, 0),
        lambda: client.copy(old, "b", client),
    ):
        with pytest.raises(DataChanged, match="'a' in share 'files'"):
            call()
    assert paths(client) == ["a"]


def test_a_copy_takes_the_metadata_along_and_is_waited_for(azure_files, client, monkeypatch):
    azure_files.create_share("other")
    other = sign_in(azure_files, "other", account_key=azure_files.keys["first"])
    monkeypatch.setattr("airflow_aml_data.core.storage.azure.fileshare._COPY_POLL_SECONDS", 0.01)
    azure_files.shares.slow_copies = 2
    file = client.write("a b%", b"content", {"k": "v"})
    copied = other.copy(file, "d/b", client)
    (found,) = other.list_files("")
    assert (found.path, found.etag, copied.checksum) == ("d/b", copied.etag, file.checksum)
    assert bytes(other.read(copied, 0, 7)) == b"content"
    assert other.metadata("d/b") == {"k": "v"}


def test_a_copy_goes_by_way_of_this_machine_when_the_service_may_not_read(azure_files, client):
    file = client.write("a", b"y" * (5 * MIB), {"k": "v"})
    azure_files.shares.refuse_copies = True
    copied = client.copy(file, "b", client)
    assert bytes(client.read(copied, 0, 5 * MIB)) == b"y" * (5 * MIB)
    assert client.metadata("b") == {"k": "v"}
    assert paths(client) == ["a", "b"]


# -- signing in


def test_a_sas_token_works_everywhere_and_is_in_no_text(azure_files, client):
    by_sas = sign_in(azure_files, sas_token=azure_files.sas())
    file = by_sas.write("d/a", b"x", {})
    by_sas.copy(file, "d/b", by_sas)
    assert paths(by_sas) == ["d/a", "d/b"]
    undo.delete(by_sas, ["d/a", "d/b"])
    by_sas.check()

    reader = sign_in(azure_files, sas_token=azure_files.sas("rl"))
    with pytest.raises(StorageRefused, match=r"No permission to write .*connection 'my_share'.* 'c' and 'w'") as caught:
        reader.write("e", b"x", {})
    expired = sign_in(azure_files, sas_token=azure_files.sas(minutes=-5))
    with pytest.raises(StorageRefused, match=r"No access to list share 'files'.*AuthenticationFailed") as late:
        expired.check()
    for error in (caught.value, late.value):
        assert "sig=" not in str(error)
        assert error.__cause__ is None
        assert error.__suppress_context__


class Identity:
    """Gives a token that lasts an hour; as many different ones as it is made."""

    made = 0

    def __init__(self) -> None:
        Identity.made += 1
        self._token = AccessToken(f"token {Identity.made}", int(time.time()) + 3600)

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        assert scopes == ("https://storage.azure.com/.default",)
        return self._token


@pytest.fixture
def over_https(tmp_path, monkeypatch):
    """Azure Files that speaks https, trusted here."""
    certificates = Certificates.make(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    with running_azure_files(certificates) as files:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca_file))
            files.create_share("files")
        monkeypatch.setattr(Identity, "made", 0)
        yield files


def test_a_token_that_ends_before_its_time_is_replaced(over_https, monkeypatch, caplog):
    over_https.tokens.add("token 1")
    storage = RemoteStorage("d", sign_in(over_https, make_credential=Identity))
    storage.write_bytes("a", b"x")
    over_https.tokens.clear()
    over_https.tokens.add("token 2")
    with pytest.raises(StorageRefused, match="InvalidAuthenticationInfo"):  # it is new: another would not help
        storage.read_bytes("a")
    assert "Attempt" not in caplog.text
    monkeypatch.setattr(tokens, "_NEW_SECONDS", 0.0)
    assert storage.read_bytes("a") == b"x"
    assert Identity.made == 2
    assert "signing in anew" in caplog.text


def test_a_certificate_that_nobody_here_signed_is_an_error_at_once(over_https, monkeypatch, caplog):
    monkeypatch.delenv("SSL_CERT_FILE")
    storage = RemoteStorage("d", sign_in(over_https, make_credential=Identity))
    with pytest.raises(StorageRefused, match=r"certificate of https://.*is not trusted.*share 'files'.*SSL_CERT_FILE"):
        list(storage.list_files(""))
    assert "Attempt" not in caplog.text


def test_tokens_are_taken_over_https(over_https):
    files = over_https
    client = sign_in(files, make_credential=Identity)
    with pytest.raises(StorageRefused, match="InvalidAuthenticationInfo"):
        client.check()
    files.tokens.add("token 1")
    file = client.write("d/a", b"x", {})
    client.copy(file, "d/b", client)
    assert paths(client) == ["d/a", "d/b"]
    assert client.is_encrypted


# -- refusals


@pytest.mark.parametrize(
    ("access", "share", "text"),
    [
        (
            {"account_key": "d3Jvbmc="},
            "files",
            "No access to list share 'files' of account 'first', connection 'my_share'",
        ),
        ({}, "files", "no anonymous access; share 'files' of account 'first', connection 'my_share' needs"),
        (None, "missing", "There is no share 'missing' of account 'first', connection 'my_share'. Create"),
    ],
)
def test_what_no_retry_cures_is_refused(azure_files, client, access, share, text):
    refused = sign_in(azure_files, share, **({"account_key": azure_files.keys["first"]} if access is None else access))
    with pytest.raises(StorageRefused, match=text):
        refused.check()
    with pytest.raises(StorageRefused):
        list(refused.list_files(""))


@pytest.mark.parametrize(
    ("status", "code", "headers", "seconds"),
    [
        (503, "ServerBusy", {"Retry-After": "7"}, 7.0),
        (429, "TooManyRequests", {}, None),
        (500, "InternalError", {}, None),
        (409, "SharingViolation", {}, None),
    ],
)
def test_what_a_retry_may_cure_says_when(azure_files, client, status, code, headers, seconds):
    sent = len(azure_files.requests)
    azure_files.fail("GET", "list", Failure(status, code, headers))
    with pytest.raises(StorageError, match=f"{status} {code}") as caught:
        client.check()
    assert caught.value.retry_after_seconds == seconds
    assert len(azure_files.requests) == sent + 1  # the SDK does not try again by itself


@pytest.mark.parametrize(("prefix", "asked"), [("", "list"), ("d", "list"), ("d/a", "")])
def test_a_listing_that_fails_is_asked_for_again(azure_files, client, caplog, prefix, asked):
    client.write("d/a", b"x", {})
    azure_files.fail("GET" if asked else "HEAD", asked, Failure(503, "ServerBusy", {"Retry-After": "0"}))
    assert paths(client, prefix) == ["d/a"]
    assert "Attempt 2 follows" in caplog.text


def test_a_server_that_is_gone_may_come_back():
    with running_azure_files() as files:
        pass
    with pytest.raises(StorageError, match=f"{files.account_url()} does not answer .*share 'files'"):
        sign_in(files, sas_token="sig=secret").check()


def test_a_folder_in_place_of_a_file_is_refused(client):
    client.write("d/a", b"", {})
    for path in ("d", "d/a/b"):
        with pytest.raises(StorageRefused, match="a folder of that name is there, or a file in place of a folder"):
            client.write(path, b"x", {})
    assert paths(client) == ["d/a"]


def test_a_file_that_is_gone_is_named(client):
    gone = StoredFile("gone", 1, "e")
    for call in (lambda: client.read(gone, 0, 1), lambda: client.copy(gone, "a", client)):
        with pytest.raises(FilesNotFound, match="'gone' is not in share 'files'"):
            call()


def test_a_process_that_forked_has_connections_of_its_own(client):
    client.write("a", b"", {})
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=lambda: there.send(paths(client)))
    child.start()
    assert here.recv() == ["a"]
    child.join()
    assert paths(client) == ["a"]


# -- names, through the datastore


@pytest.fixture
def storage(client):
    return RemoteStorage("d", client, reads_back=False)


@pytest.fixture
def put(storage, tmp_path):
    def put(*paths: str, content: str = "x", overwrite: bool = True) -> None:
        (tmp_path / "put").write_text(content)
        storage.upload([(tmp_path / "put", each) for each in paths], overwrite=overwrite, progress=quiet)

    return put


def publish(storage, folder, *names, overwrite):
    folder.mkdir()
    for each in names:
        (folder / each).write_text("new")
    local = read_local((each, str(folder / each)) for each in names)
    return storage.publish("run", "o", folder, local, "out", overwrite=overwrite, exclusive=False, progress=quiet)


def contents(client):
    return {each.path: bytes(client.read(each, 0, each.size_bytes)) for each in client.list_files("")}


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a", "A"], "'out/a' and 'out/A' are the same file in share 'files'"),
        (["a", "b:"], "'out/b:' has the character"),
    ],
)
def test_names_are_refused_before_the_first_byte(azure_files, client, storage, put, tmp_path, names, text):
    paths = [f"out/{each}" for each in names]
    source = client.write("source", b"x", {})
    before = len(azure_files.requests)
    with pytest.raises(InvalidPath, match=text):
        put(*paths)
    with pytest.raises(InvalidPath, match=text):
        storage.copy([(source, each) for each in paths], storage, progress=quiet)
    with pytest.raises(InvalidPath, match=text):
        publish(storage, tmp_path / "staged", *names, overwrite=True)
    assert len(azure_files.requests) == before


@pytest.mark.parametrize("files", [1, 20])
def test_files_are_found_whatever_the_case_of_their_names(client, storage, put, tmp_path, files):
    names = [f"File{number}" for number in range(files)]
    put(*(f"out/{each.upper()}" for each in names), content="old")
    before = contents(client)
    with pytest.raises(FilesExist, match="out/File0"):
        put(*(f"out/{each}" for each in names), content="another", overwrite=False)
    put(*(f"out/{each}" for each in names), content="old", overwrite=False)
    with pytest.raises(OutputConflict, match=f"{files} of {files} files are at the destination"):
        publish(storage, tmp_path / "refused", *names, overwrite=False)
    assert contents(client) == before

    publish(storage, tmp_path / "staged", *names, overwrite=True)
    assert set(contents(client).values()) >= {b"new"}
    storage.take_back("run", "o", "out", exclusive=False)
    assert {path.lower(): each for path, each in contents(client).items()} == {
        path.lower(): each for path, each in before.items()
    }
