"""Single requests to an Azure ML workspace: Azure's control plane, and run history.

Azure ML's own client, ``azure-ai-ml``, takes 4 to 6 seconds to be imported, in every task and at every poll of a trigger; one
request needs none of it. It is used for what takes many requests: submitting a job with its code, see :meth:`ControlPlane.ml_client`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from airflow_aml_data.core.azureml.refusals import WORKSPACES, Refusals
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.azure.clouds import cloud_of, workspace_identity
from airflow_aml_data.core.storage.azure.tokens import Access
from airflow_aml_data.core.storage.azure.trust import trusted
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import AmlDataError, AzureMlError, AzureMlNotFound, AzureMlRefused, MissingExtra

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.exceptions import HttpResponseError

Method = Literal["GET", "PUT", "POST", "PATCH"]

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_NO_BODY = (202, 204)
_NOTHING_THERE = (404, 416)


class _Request(NamedTuple):
    method: Method
    url: str
    scope: str
    path: str
    query: Mapping[str, str]
    body: Any = None


class ControlPlane:
    """One Azure ML workspace.

    Paths are below the workspace, such as ``"/jobs/NAME"``; ``""`` is the workspace itself. Calls are retried and raise

    * :exc:`.AzureMlRefused` for what no retry cures: who asks, a missing role, a missing workspace, a request that is not taken;
    * :exc:`.AzureMlNotFound` when the workspace is there and the thing is not;
    * :exc:`.AzureMlError` when the service still fails after the last retry.

    Safe in threads. Nothing is asked before the first call.

    :param connection: Of type ``azureml``: whom to sign in as, and the cloud.
    """

    def __init__(
        self, connection: ConnectionFields, *, subscription_id: str, resource_group: str, workspace_name: str
    ) -> None:
        self.connection = connection
        self.subscription_id, self.resource_group, self.workspace_name = subscription_id, resource_group, workspace_name
        self._cloud = cloud_of(connection)
        self._arm_scope = f"{self._cloud.audience}/.default"
        who = f"Azure ML workspace {workspace_name!r}, connection {connection.conn_id!r}"
        self._access = Access(workspace_identity(connection), who, refused=AzureMlRefused, failed=AzureMlError)
        self._refusals = Refusals(self, who)
        self._clients: dict[int, httpx.Client] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ControlPlane({self.workspace_name!r}, connection {self.connection.conn_id!r})"

    @property
    def arm_id(self) -> str:
        """The workspace's resource id."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace_name}"
        )

    @property
    def tenant_id(self) -> str:
        """The connection's tenant; empty when the connection names none."""
        return str(self.connection.extra.get("tenant_id") or "")

    @property
    def studio_url(self) -> str:
        """Address of Azure ML's pages."""
        return f"https://{self._cloud.studio}"

    @cached_property
    def workspace(self) -> Mapping[str, Any]:
        """What the service says of the workspace, asked once."""
        return self.get("", WORKSPACES)

    @cached_property
    def regional_url(self) -> str:
        """Address of the workspace's region, for run history; asked once."""
        found = str(self.workspace.get("properties", {}).get("discoveryUrl") or "")
        services = self._asked(_Request("GET", found, "", "", {})) if found.startswith("https://") else {}
        address = str(services.get("api") or "").rstrip("/")
        if not address.startswith("https://"):
            raise AzureMlRefused(
                f"Azure ML workspace {self.workspace_name!r} does not say where its run history is: its discoveryUrl is {found!r}. "
                "Look at the workspace in the portal: it may still be in the making."
            )
        return address

    def get(self, path: str, api_version: str, **query: str) -> dict[str, Any]:
        """What is at a path; when nothing is, the error says what there is, where that is a short list."""
        try:
            return self._asked(self._arm("GET", path, api_version, query))
        except AzureMlNotFound as error:
            raise self._refusals.with_known_names(path, error) from None

    def find(self, path: str, api_version: str) -> dict[str, Any] | None:
        """What is at a path; None when the workspace has no such thing."""
        try:
            return self._asked(self._arm("GET", path, api_version, {}))
        except AzureMlNotFound:
            return None

    def put(self, path: str, api_version: str, body: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Create or replace what is at a path."""
        return self._asked(self._arm("PUT", path, api_version, query, body))

    def post(self, path: str, api_version: str, body: Any = None) -> dict[str, Any] | None:
        """Have something done; None when the answer is that it will be."""
        return self._asked(self._arm("POST", path, api_version, {}, body)) or None

    def pages(self, path: str, api_version: str, **query: str) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page."""
        request = self._arm("GET", path, api_version, query)
        while True:
            page = self._asked(request)
            yield from page.get("value", ())
            link = page.get("nextLink")
            if not link:
                return
            if urlsplit(link).netloc.lower() != self._cloud.management:
                raise AzureMlRefused(
                    f"The list of {path!r} goes on at {urlsplit(link).netloc!r}, where no token is sent. Allowed: {self._cloud.management}."
                )
            request = request._replace(url=link, query={})

    def history(self, method: Method, path: str, body: Any = None) -> dict[str, Any]:
        """A request to run history, which is at the workspace's region and has versions of its own."""
        url = f"{self.regional_url}/history/v1.0{quote(self.arm_id)}{quote(path)}"
        return self._asked(_Request(method, url, f"https://{self._cloud.studio}/.default", path, {}, body))

    def read_signed(self, url: str, start: int) -> bytes:
        """What is at a signed address, such as that of a log, from byte ``start`` on; nothing when it ends there."""

        def attempt() -> bytes:
            try:
                answer = self._client.get(url, headers={"Range": f"bytes={start}-"})
            except httpx.HTTPError as error:
                raise self._refusals.out_of_reach(error, url) from None
            if answer.status_code in _NOTHING_THERE:
                return b""
            if answer.status_code >= 300:
                raise self._refusals.failure("GET", "the job's log", answer.status_code, {}, None, False)
            return answer.content if answer.status_code == 206 else answer.content[start:]

        return Requests().one("Reading the job's log", attempt)

    def failure_of_client(self, path: str, error: HttpResponseError) -> AmlDataError:
        """What an error of Azure ML's own client means."""
        said = {
            "code": getattr(error.error, "code", ""),
            "message": getattr(error.error, "message", "") or error.message,
        }
        retry_after = getattr(error.response, "headers", {}).get("Retry-After")
        return self._refusals.failure("PUT", path, error.status_code or 0, {"error": said}, retry_after, False)

    async def aget(self, path: str, api_version: str) -> dict[str, Any]:
        """What is at a path, for triggers: one attempt, which keeps no event loop waiting."""
        request = self._arm("GET", path, api_version, {})
        sign_in = self._access.sign_in
        headers, certificates = await asyncio.to_thread(lambda: (self._headers(request), self._trusted))
        try:
            async with httpx.AsyncClient(verify=certificates, timeout=_TIMEOUT) as client:
                answer = await client.get(request.url, headers=headers, params=request.query)
        except httpx.HTTPError as error:
            raise self._refusals.out_of_reach(error, request.url) from None
        if answer.status_code < 300:
            return _content(answer)
        raise await asyncio.to_thread(self._failure, request, answer, sign_in)

    def ml_client(self) -> MLClient:
        """Azure ML's own client for the workspace, signed in with the connection's identity.

        It keeps the name of its cloud in an environment variable: one process has clients of one cloud.

        :raises MissingExtra: when azure-ai-ml is not installed.
        """
        try:
            from azure.ai.ml import MLClient
        except ModuleNotFoundError:
            raise MissingExtra("Azure ML's own client", "azureml") from None
        return MLClient(
            self._access,
            self.subscription_id,
            self.resource_group,
            self.workspace_name,
            enable_telemetry=False,
            show_progress=False,
            cloud=self._cloud.sdk_name,  # else that of the client before it
        )

    def check(self) -> str:
        """Say in a few words that the workspace answers, or raise."""
        found = self.get("", WORKSPACES)
        return f"Azure ML workspace {self.workspace_name!r} ({found.get('location', 'its region is not known')})"

    def _arm(self, method: Method, path: str, api_version: str, query: Mapping[str, str], body: Any = None) -> _Request:
        url = f"https://{self._cloud.management}{quote(self.arm_id + path)}"
        return _Request(method, url, self._arm_scope, path, {"api-version": api_version, **query}, body)

    def _asked(self, request: _Request) -> dict[str, Any]:
        def attempt() -> dict[str, Any]:
            sign_in = self._access.sign_in
            headers = self._headers(request)
            try:
                answer = self._client.request(
                    request.method, request.url, headers=headers, params=request.query or None, json=request.body
                )
            except httpx.HTTPError as error:
                raise self._refusals.out_of_reach(error, request.url) from None
            if answer.status_code >= 300:
                raise self._failure(request, answer, sign_in)
            return _content(answer)

        return Requests().one(f"{request.method} {request.path!r} of workspace {self.workspace_name!r}", attempt)

    def _headers(self, request: _Request) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._access.get_token(request.scope).token}"} if request.scope else {}

    def _failure(self, request: _Request, answer: httpx.Response, sign_in: int) -> AmlDataError:
        status = answer.status_code
        is_stale = status == 401 and self._access.renew(sign_in)
        return self._refusals.failure(
            request.method, request.path, status, _content(answer), answer.headers.get("Retry-After"), is_stale
        )

    @property
    def _client(self) -> httpx.Client:
        """Made when first asked, anew in a process that forked: connections cannot be shared."""
        process = os.getpid()
        with self._lock:
            if process not in self._clients:
                self._clients[process] = httpx.Client(verify=self._trusted, timeout=_TIMEOUT)
            return self._clients[process]

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return trusted(f"https://{self._cloud.management}")


def _content(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty when it has none, as that of a gateway in between."""
    if answer.status_code in _NO_BODY or not answer.content:
        return {}
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
