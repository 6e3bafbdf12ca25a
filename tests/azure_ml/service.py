"""Which request is answered how: by whom, with which permission, and checked against the published types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.azure_ml import history, jobs, resources
from tests.azure_ml.names import API_HOST, GROUP, SUBSCRIPTION, WORKSPACE
from tests.azure_ml.published import problems_of_answer, problems_of_request
from tests.azure_ml.state import Failure, Request, State
from tests.azurite.login import CLIENT
from tests.azurite.servers import CLOUDS, Answer, Asked, Refusal

_WORKSPACE = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers"
    r"/Microsoft\.MachineLearningServices/workspaces/(?P<workspace>[^/]+)(?P<rest>/.*)?",
    re.IGNORECASE,
)
_KIND, _NAME, _VERSION = "/(?P<kind>data|environments)", "/(?P<name>[^/]+)", "/versions/(?P<version>[^/]+)"
_ML_SCOPE = "https://ml.azure.com/.default"


@dataclass(frozen=True)
class Route:
    """A request that is known.

    :param path: Behind the workspace.
    :param permission: That it takes; ``{kind}`` is that of its path.
    :param published: Whether there are published types of it.
    """

    method: str
    path: re.Pattern[str]
    permission: str
    answer: Callable[..., Answer]
    published: bool = True


def _route(method: str, path: str, permission: str, answer: Callable[..., Answer], published: bool = True) -> Route:
    return Route(method, re.compile(path, re.IGNORECASE), permission, answer, published)


_ROUTES = [
    _route("GET", "", "workspaces/read", resources.get_workspace),
    _route("GET", "/datastores", "datastores/read", resources.list_datastores),
    _route("GET", f"/datastores{_NAME}", "datastores/read", resources.get_datastore),
    _route("PUT", f"/datastores{_NAME}", "datastores/write", resources.put_datastore),
    _route("POST", f"/datastores{_NAME}/listSecrets", "listSecrets", resources.list_secrets),
    _route("GET", "/computes", "computes/read", resources.list_computes),
    _route("GET", f"/computes{_NAME}", "computes/read", resources.get_compute),
    _route("GET", _KIND, "{kind}/read", resources.list_containers),
    _route("GET", f"{_KIND}{_NAME}", "{kind}/read", resources.get_container),
    _route("PUT", f"{_KIND}{_NAME}", "{kind}/write", resources.put_container),
    _route("GET", f"{_KIND}{_NAME}/versions", "{kind}/read", resources.list_versions),
    _route("GET", f"{_KIND}{_NAME}{_VERSION}", "{kind}/read", resources.get_version),
    _route("PUT", f"{_KIND}{_NAME}{_VERSION}", "{kind}/write", resources.put_version),
    _route("GET", f"/codes{_NAME}/versions", "codes/read", jobs.find_code),
    _route("POST", f"/codes{_NAME}{_VERSION}/startPendingUpload", "codes/write", jobs.start_upload),
    _route("PUT", f"/codes{_NAME}{_VERSION}", "codes/write", jobs.put_code),
    _route("GET", f"/codes{_NAME}{_VERSION}", "codes/read", jobs.get_code),
    _route("GET", "/jobs", "jobs/read", jobs.list_jobs),
    _route("GET", f"/jobs{_NAME}", "jobs/read", jobs.get_job),
    _route("PUT", f"/jobs{_NAME}", "jobs/write", jobs.put_job),
    _route("POST", f"/jobs{_NAME}/cancel", "jobs/cancel", jobs.cancel_job),
    _route("GET", f"/jobs{_NAME}/cancelResults/1", "jobs/read", jobs.poll_cancel, published=False),
]
_API_ROUTES = [
    _route("GET", f"/history/v1\\.0/runs{_NAME}/details", "history/read", history.run_details, False),
    _route("POST", "/history/v1\\.0/rundata", "history/read", history.run_data, False),
    _route(
        "PATCH",
        f"/history/v1\\.0/experiments/(?P<experiment>[^/]+)/runs{_NAME}",
        "history/write",
        history.change_run,
        False,
    ),
    _route("POST", "/data/v1\\.0/dataversion/batchGetResolvedUris", "data/read", history.resolve_uris, False),
]
"""Of the workspace's own host, with the name of the service before the workspace."""


def answer(state: State, asked: Asked) -> Answer:
    """What the service answers.

    :raises Refusal: when it does not do what it was asked for.
    """
    parts = urlsplit(asked.url)
    request = Request(
        host=asked.host,
        method=asked.method,
        path=unquote(parts.path),
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        body=json.loads(asked.body) if asked.body else None,
    )
    with state.lock:
        state.requests.append(request)
        try:
            given = _answer(state, request, asked.token)
        except Refusal as refusal:
            request.status = refusal.answer.status
            raise
        request.status = given.status
        return given


def _answer(state: State, request: Request, token: str) -> Answer:
    if request.host == API_HOST and (request.method, request.path) == ("GET", "/discovery"):
        return Answer(dict.fromkeys(("api", "history", "data", "mlflow"), f"https://{API_HOST}"))
    scopes = {_ML_SCOPE} | (
        {CLOUDS[request.host][1], f"https://{request.host}/.default"}
        if request.host in CLOUDS
        else {each[1] for each in CLOUDS.values()}
    )
    if state.login.scopes.get(token, "").replace("//.default", "/.default") not in scopes:
        raise Refusal(401, "InvalidAuthenticationToken", "The access token is missing, or for something else.")
    failure = _take_failure(state, request)
    if failure and not failure.done:
        raise _refusal(failure)
    given = _of_workspace(state, request)
    if failure:
        raise _refusal(failure)
    return given


def _of_workspace(state: State, request: Request) -> Answer:
    arm = request.host != API_HOST
    prefix, found = "", _WORKSPACE.fullmatch(request.path)
    if not arm:
        prefix, _, rest = request.path.partition("/subscriptions/")
        found = _WORKSPACE.fullmatch(f"/subscriptions/{rest}")
    if not found:
        raise _unrouted(state, request)
    if arm and not request.api_version:
        raise Refusal(
            400, "MissingApiVersionParameter", "The api-version query parameter is required for all requests."
        )
    _same("SubscriptionNotFound", "subscription", found["subscription"], SUBSCRIPTION)
    _same("ResourceGroupNotFound", "resource group", found["group"], GROUP)
    _same("ResourceNotFound", "workspace", found["workspace"], WORKSPACE)
    path = prefix + (found["rest"] or "")
    for route in _ROUTES if arm else _API_ROUTES:
        if route.method == request.method and (matched := route.path.fullmatch(path)):
            return _routed(state, request, route, matched.groupdict())
    raise _unrouted(state, request)


def _routed(state: State, request: Request, route: Route, names: dict[str, Any]) -> Answer:
    if "kind" in names:
        names["kind"] = names["kind"].lower()
    permission = route.permission.format(**names)
    if permission not in state.may:
        message = (
            f"The client '{CLIENT}' does not have authorization to perform action '{permission}' over '{request.path}'."
        )
        raise Refusal(403, "AuthorizationFailed", message)
    address = request.method, request.path, request.api_version
    if route.published and (wrong := problems_of_request(*address, request.body)):
        state.violations += wrong
        raise resources.invalid("Request is invalid and/or missing fields.", *wrong)
    given = route.answer(state, request, **names)
    if route.published:
        state.violations += problems_of_answer(*address, given.content)
    return given


def _same(code: str, what: str, found: str, known: str) -> None:
    if found.lower() != known.lower():
        raise Refusal(404, code, f"The {what} '{found}' could not be found.")


def _unrouted(state: State, request: Request) -> Refusal:
    state.unrouted.append(f"{request.method} {request.host}{request.path}")
    return Refusal(404, "InvalidResourceType", f"{request.method} {request.path} is nothing that exists.")


def _take_failure(state: State, request: Request) -> Failure | None:
    for failure in state.failures:
        if re.search(failure.path, request.path, re.IGNORECASE) and failure.method in ("", request.method):
            state.failures.remove(failure)
            return failure
    return None


def _refusal(failure: Failure) -> Refusal:
    code = {401: "InvalidAuthenticationToken", 403: "AuthorizationFailed", 429: "TooManyRequests"}
    return Refusal(failure.status, code.get(failure.status, "ServiceError"), "Later.", failure.headers)
