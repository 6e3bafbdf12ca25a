"""Who may do what: shared keys, SAS tokens and bearer tokens, checked as Azure does."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from tests.azure_files.shares import Failure

_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)
_SAS_FIELDS = ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses")
_NEEDED = {"GET": "rl", "HEAD": "rl", "PUT": "wc", "DELETE": "d"}


def check(
    method: str, url: str, headers: Mapping[str, str], keys: Mapping[str, str], tokens: set[str], *, secure: bool
) -> None:
    """Refuse a request that is not signed by somebody who may."""
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    account = urlsplit(url).path.split("/")[1]
    if account not in keys:
        raise Failure(404, "ResourceNotFound")
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme == "SharedKey":
        text = _string_to_sign(method, url, headers, query, account)
        if not hmac.compare_digest(credential, f"{account}:{_sign(keys[account], text)}"):
            raise Failure(403, "AuthenticationFailed")
    elif scheme == "Bearer":
        if not secure or credential not in tokens:
            raise Failure(401, "InvalidAuthenticationInfo")
        if headers.get("x-ms-file-request-intent") != "backup":
            raise Failure(400, "MissingRequiredHeader")
    elif "sig" in query:
        check_sas(method, query, account, keys[account])
    else:
        raise Failure(401, "NoAuthenticationInformation")


def check_sas(method: str, query: Mapping[str, str], account: str, key: str) -> None:
    text = "".join(f"{each}\n" for each in (account, *(query.get(field, "") for field in _SAS_FIELDS)))
    if not hmac.compare_digest(query.get("sig", ""), _sign(key, text)):
        raise Failure(403, "AuthenticationFailed")
    if datetime.fromisoformat(query["se"]) < datetime.now(UTC):
        raise Failure(403, "AuthenticationFailed")
    if not set(_NEEDED[method]) & set(query.get("sp", "")):
        raise Failure(403, "AuthorizationPermissionMismatch")


def _string_to_sign(method: str, url: str, headers: Mapping[str, str], query: Mapping[str, str], account: str) -> str:
    said = {name: headers.get(name, "") for name in _SIGNED_HEADERS}
    if said["content-length"] == "0":
        said["content-length"] = ""
    own = sorted((each for each in headers if each.startswith("x-ms-")), key=lambda each: each.replace("-", ""))
    return (
        "\n".join([method, *said.values(), ""])
        + "".join(f"{each}:{headers[each]}\n" for each in own)
        + f"/{account}{urlsplit(url).path}"
        + "".join(f"\n{name.lower()}:{value}" for name, value in sorted(query.items()))
    )


def _sign(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
