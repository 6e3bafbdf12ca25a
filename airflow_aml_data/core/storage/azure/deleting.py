"""Delete blobs: many in one request, each only if it is still the version that is meant."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from email.message import Message

import httpx

from airflow_aml_data.core.storage.azure.rest import Container, is_not_permitted
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import AmlDataError, DataChanged, FileKept, FilesNotFound, StorageError, StorageRefused

_THREADS = 8
_NUMBER = re.compile(r"^Content-ID: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(r"^HTTP/1\.1 (202|[45]\d\d) ", re.MULTILINE)
_CODE = re.compile(r"^x-ms-error-code: *(\w+)\r$", re.IGNORECASE | re.MULTILINE)
_RETRY_AFTER = re.compile(r"^Retry-After: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)


def delete_blobs(container: Container, files: Sequence[StoredFile]) -> Sequence[AmlDataError | None]:
    """Delete up to 256 blobs; see :meth:`.ObjectClient.delete`."""
    answers = _delete_together(container, files)
    if answers is None:
        answers = _ask(files, lambda each: container.request("delete", "DELETE", each.path, headers=_headers(each)))
    unlike = [each for each in files if isinstance(answers[each], DataChanged)]  # or gone: not every server tells apart
    there = _ask(unlike, lambda each: container.request("read", "HEAD", each.path))
    return [there.get(each) or answers[each] for each in files]


def _ask(
    files: Sequence[StoredFile], request: Callable[[StoredFile], object]
) -> Mapping[StoredFile, AmlDataError | None]:
    """Send a request for each file; what went wrong with it, unless that would go wrong with all.

    :raises StorageRefused: for what the store refuses whatever the file is.
    """

    def ask(file: StoredFile) -> tuple[StoredFile, AmlDataError | None]:
        try:
            request(file)
        except (FilesNotFound, DataChanged, FileKept, StorageError) as error:
            return file, error
        return file, None

    found: dict[StoredFile, AmlDataError | None] = {}
    Requests(_THREADS).each(ask, files, lambda answer: found.update([answer]))
    return found


def _delete_together(
    container: Container, files: Sequence[StoredFile]
) -> Mapping[StoredFile, AmlDataError | None] | None:
    """Delete blobs by one request. Source: Azure, "Blob Batch".

    :returns: None when the server refuses it as a whole, as one does that knows no batches; it has deleted nothing then.
    """
    if "srt=" in container.account.sas():  # an account's SAS token, at whose batches Azurite fails with 500
        return None
    sign_in, boundary = container.account.sign_in, f"batch_{uuid.uuid4()}"
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\nContent-ID: {number}\r\n\r\n"
        + container.part("DELETE", each.path, _headers(each))
        for number, each in enumerate(files)
    ]
    try:
        answer = container.request(
            "delete",
            "POST",
            query={"restype": "container", "comp": "batch"},
            headers={"Content-Type": f"multipart/mixed; boundary={boundary}"},
            content="".join([*parts, f"--{boundary}--\r\n"]).encode(),
        )
    except StorageRefused:
        return None
    found = _answers(answer)
    if found.keys() == {None}:
        return None
    if found.keys() != set(range(len(files))):
        raise _damaged(container)
    return {each: _failure(container, each.path, found[number], sign_in) for number, each in enumerate(files)}


def _headers(file: StoredFile) -> dict[str, str]:
    return {"x-ms-delete-snapshots": "include"} | ({"If-Match": f'"{file.etag}"'} if file.etag else {})


def _answers(answer: httpx.Response) -> dict[int | None, str]:
    """The answers in one to a batch, by the numbers of its parts; None: to all of it."""
    content_type = Message()
    content_type["Content-Type"] = answer.headers.get("Content-Type", "")
    parts = answer.text.split(f"--{content_type.get_boundary()}")[1:-1]
    numbers = [_NUMBER.search(each) for each in parts]
    return {int(number[1]) if number else None: each for number, each in zip(numbers, parts, strict=True)}


def _failure(container: Container, path: str, answer: str, sign_in: int) -> AmlDataError | None:
    """What an answer to a part of a batch means; None: it is deleted."""
    found = _STATUS.search(answer)
    status = int(found[1]) if found else 0
    if status == 202:
        return None
    code, retry_after = _header(_CODE, answer), _header(_RETRY_AFTER, answer)
    if not status or (status == 403 and not is_not_permitted(code, answer)):  # the batch itself was accepted
        return _damaged(container)
    return container.failure("delete", path, status, answer, code, retry_after, sign_in=sign_in)


def _header(name: re.Pattern[str], answer: str) -> str:
    found = name.search(answer)
    return found[1] if found else ""


def _damaged(container: Container) -> StorageError:
    return StorageError(f"{container}: a batch of deletions, or the answer to it, came cut short or damaged.")
