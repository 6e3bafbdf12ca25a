"""The service that issues tokens: Microsoft Entra ID, and a managed identity's endpoint, as azure-identity asks them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.azurite.certificates import Certificates
from tests.azurite.servers import running_server

TENANT = "11111111-1111-1111-1111-111111111111"
CLIENT = "22222222-2222-2222-2222-222222222222"
SECRET = "the secret of the client"
ASSERTION = "what the cluster wrote into the pod"
IDENTITY_HEADER = "the header of the app service"


@dataclass
class Login:
    """A running service.

    :param url: Its address.
    :param issued: How each token that it gave was asked for: ``secret``, ``workload`` or ``managed``.
    :param tokens: Every token it gave.
    :param scopes: Every token it gave to what it was asked for.
    :param lifetime_seconds: Of the tokens it gives from now on.
    :param good_seconds: How long storage takes them, when that is shorter than what they are said to last.
    :param broken: Whether it answers nothing but 503.
    """

    url: str
    issued: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list, repr=False)
    scopes: dict[str, str] = field(default_factory=dict, repr=False)
    lifetime_seconds: int = 3600
    good_seconds: int | None = None
    broken: bool = False

    def token(self, how: str, scope: str = "") -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "aud": scope.removesuffix("/.default") or "https://storage.azure.com",
            "iss": f"https://sts.windows.net/{TENANT}/",
            "tid": TENANT,
            "oid": CLIENT,
            "iat": now,
            "nbf": now - 5,
            "exp": now + (self.lifetime_seconds if self.good_seconds is None else self.good_seconds),
            "jti": len(self.issued),
        }
        self.issued.append(how)
        self.tokens.append(_signed(claims))
        self.scopes[self.tokens[-1]] = scope
        return {
            "token_type": "Bearer",
            "access_token": self.tokens[-1],
            "expires_in": self.lifetime_seconds,
            "expires_on": str(now + self.lifetime_seconds),
            "resource": "https://storage.azure.com",
        }

    def authority(self, host: str, tenant: str) -> dict[str, Any]:
        base = f"https://{host}/{tenant}"
        return {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
        }

    def sign_in(self, tenant: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if tenant != TENANT:
            return _no_tenant(tenant)
        if form.get("client_id") != CLIENT:
            return _refusal(400, "unauthorized_client", "AADSTS700016: Application was not found in the directory.")
        if "client_assertion" in form:
            return (
                (200, self.token("workload", form.get("scope", "")))
                if form["client_assertion"] == ASSERTION
                else _INVALID
            )
        return (200, self.token("secret", form.get("scope", ""))) if form.get("client_secret") == SECRET else _INVALID


def _refusal(status: int, error: str, description: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": error, "error_description": description}


def _no_tenant(tenant: str) -> tuple[int, dict[str, Any]]:
    return _refusal(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.")


_INVALID = _refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided. Trace ID: 1")


def _signed(claims: dict[str, Any]) -> str:
    """A token; nobody here checks who signed it."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    ]
    text = b".".join(parts)
    signature = hmac.digest(b"a key", text, hashlib.sha256)
    return b".".join([text, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


_MANAGED = {
    "/msi/token": ("X-IDENTITY-HEADER", IDENTITY_HEADER),  # of an app service
    "/metadata/identity/oauth2/token": ("Metadata", "true"),  # of a virtual machine
}


class _Handler(BaseHTTPRequestHandler):
    login: Login
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.endswith("/.well-known/openid-configuration"):
            tenant = path.split("/")[1]
            self._answer(
                *(_no_tenant(tenant) if tenant != TENANT else (200, self.login.authority(self.headers["Host"], tenant)))
            )
        elif path == "/common/discovery/instance":
            issuer = self.login.authority(self.headers["Host"], TENANT)["issuer"]
            self._answer(
                200, {"tenant_discovery_endpoint": f"{issuer}/.well-known/openid-configuration", "metadata": []}
            )
        elif path in _MANAGED and self.headers[_MANAGED[path][0]] == _MANAGED[path][1]:
            resource = parse_qs(urlsplit(self.path).query)["resource"][0]
            self._answer(200, self.login.token("managed", f"{resource}/.default"))
        else:
            self._answer(404, {"error": "not_found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {key: values[0] for key, values in parse_qs(body).items()}
        self._answer(*self.login.sign_in(urlsplit(self.path).path.split("/")[1], form))

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        if self.login.broken:
            status, content = 503, {}
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def running_login(certificates: Certificates) -> Iterator[Login]:
    """A service of its own, on a free port of this machine."""

    class Handler(_Handler):
        """Of this service alone."""

    login = Handler.login = Login("")
    with running_server(certificates, Handler) as login.url:
        yield login
