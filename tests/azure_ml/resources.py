"""The workspace, and what is registered in it: datastores, data, environments, computes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from tests.azure_ml.names import (
    API_HOST,
    GROUP,
    NAME,
    REGION,
    SUBSCRIPTION,
    WORKSPACE,
    WORKSPACE_ID,
    long_uri,
    resource_id,
)
from tests.azure_ml.state import Request, State, datastore_properties, next_version
from tests.azurite.login import TENANT
from tests.azurite.servers import Answer, Refusal

_TYPE = "Microsoft.MachineLearningServices/workspaces"


def resource(state: State, properties: dict[str, Any], *parts: str, made: bool = True) -> dict[str, Any]:
    """Something in the workspace, as it is answered.

    :param parts: Kinds and names in turn.
    :param made: Whether it says who made it.
    """
    id_ = resource_id(*parts)
    kind = "/".join([_TYPE, *parts[::2]])
    found = {"id": id_, "name": parts[-1], "type": kind, "properties": properties}
    return found | ({"systemData": state.made(id_)} if made else {})


def created(content: dict[str, Any], new: bool) -> Answer:
    """The answer to a PUT."""
    return (
        Answer(content, 201, {"Location": f"https://management.azure.com{content['id']}"}) if new else Answer(content)
    )


def not_found(kind: str, name: str) -> Refusal:
    return Refusal(404, "UserError", f"{kind} '{name}' was not found in workspace '{WORKSPACE}'.", **_NO_DETAILS)


def invalid(message: str, *details: str) -> Refusal:
    """What the service says of a request that it does not take."""
    each = [{"code": "RequestInvalid", "message": text, "details": [], "additionalInfo": []} for text in details]
    return Refusal(400, "UserError", message, details=each, additionalInfo=[])


_NO_DETAILS: dict[str, Any] = {"details": [], "additionalInfo": []}


def page(state: State, request: Request, items: list[dict[str, Any]]) -> Answer:
    """Items of a list, and the address of those that follow."""
    start = int(request.query.get("$skip", "0"))
    top = int(request.query.get("$top") or request.query.get("count") or state.page_size)
    end = start + min(top, state.page_size)
    content: dict[str, Any] = {"value": items[start:end]}
    if end < len(items) and "$top" not in request.query:
        query = urlencode({**request.query, "$skip": str(end)})
        content["nextLink"] = f"https://{request.host}{request.path}?{query}"
    return Answer(content)


def shown(request: Request, properties: dict[str, Any]) -> bool:
    """Whether a list has something that may be archived."""
    view = request.query.get("listViewType", "ActiveOnly")
    return view == "All" or bool(properties.get("isArchived")) == (view == "ArchivedOnly")


def get_workspace(state: State, request: Request) -> Answer:
    rest = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
    properties = {
        "friendlyName": WORKSPACE,
        "workspaceId": "55555555-5555-5555-5555-555555555555",
        "discoveryUrl": f"https://{API_HOST}/discovery",
        "mlFlowTrackingUri": f"azureml://{API_HOST}/mlflow/v1.0{WORKSPACE_ID}",
        "storageAccount": f"{rest}/Microsoft.Storage/storageAccounts/first",
        "keyVault": f"{rest}/Microsoft.KeyVault/vaults/team",
        "tenantId": TENANT,
        "provisioningState": "Succeeded",
        "hbiWorkspace": False,
        "publicNetworkAccess": "Enabled",
    }
    content = {
        "id": WORKSPACE_ID,
        "name": WORKSPACE,
        "type": _TYPE,
        "location": REGION,
        "kind": "Default",
        "sku": {"name": "Basic", "tier": "Basic"},
        "identity": {"type": "SystemAssigned", "tenantId": TENANT, "principalId": TENANT},
        "tags": {},
        "properties": properties,
        "systemData": state.made(WORKSPACE_ID),
    }
    return Answer(content)


def list_datastores(state: State, request: Request) -> Answer:
    only_default = request.query.get("isDefault", "").lower() == "true"
    found = [
        resource(state, each, "datastores", name)
        for name, each in state.datastores.items()
        if each["isDefault"] or not only_default
    ]
    return page(state, request, found)


def get_datastore(state: State, request: Request, name: str) -> Answer:
    if name not in state.datastores:
        raise not_found("Datastore", name)
    return Answer(resource(state, state.datastores[name], "datastores", name))


def put_datastore(state: State, request: Request, name: str) -> Answer:
    new, sent = name not in state.datastores, request.body["properties"]
    state.datastores[name] = datastore_properties(sent)
    state.secrets.pop(name, None)
    if "secrets" in sent["credentials"]:
        state.secrets[name] = sent["credentials"]["secrets"]
    return created(resource(state, state.datastores[name], "datastores", name), new)


def list_secrets(state: State, request: Request, name: str) -> Answer:
    if name not in state.datastores:
        raise not_found("Datastore", name)
    if name not in state.secrets:
        raise invalid(f"Datastore '{name}' has no credentials.")
    known, asked = state.secrets[name], request.body or {}
    if known["secretsType"] != "AccountKey" or state.secrets_are == "AccountKey" or not asked.get("expirableSecret"):
        return Answer(known)
    seconds = min(state.secrets_seconds, 3600.0 * asked.get("expireAfterHours", 1))
    sas = state.storage.account_sas(state.datastores[name]["accountName"], known["key"], seconds)
    return Answer({"secretsType": "Sas", "sasToken": sas})


def list_computes(state: State, request: Request) -> Answer:
    return page(state, request, [_compute(state, name) for name in state.computes])


def get_compute(state: State, request: Request, name: str) -> Answer:
    if name not in state.computes:
        raise Refusal(404, "ResourceNotFound", f"The compute '{name}' was not found.", **_NO_DETAILS)
    return Answer(_compute(state, name))


def _compute(state: State, name: str) -> dict[str, Any]:
    return resource(state, state.computes[name], "computes", name) | {"location": REGION}


def list_containers(state: State, request: Request, kind: str) -> Answer:
    names = [each for each in _versions(state, kind) if shown(request, state.container(kind, each))]
    return page(state, request, [_container(state, kind, name) for name in reversed(names)])


def get_container(state: State, request: Request, kind: str, name: str) -> Answer:
    if name not in _versions(state, kind):
        raise not_found(kind, name)
    return Answer(_container(state, kind, name))


def put_container(state: State, request: Request, kind: str, name: str) -> Answer:
    if name not in _versions(state, kind):
        raise not_found(kind, name)
    state.container(kind, name).update(request.body["properties"])
    return Answer(_container(state, kind, name))


def list_versions(state: State, request: Request, kind: str, name: str) -> Answer:
    found = [
        resource(state, each, kind, name, "versions", version)
        for version, each in reversed(_versions(state, kind).get(name, {}).items())
        if shown(request, each)
    ]
    return page(state, request, found)


def get_version(state: State, request: Request, kind: str, name: str, version: str) -> Answer:
    try:
        found = _versions(state, kind)[name][version]
    except KeyError:
        raise not_found(kind, f"{name}:{version}") from None
    return Answer(resource(state, found, kind, name, "versions", version))


def put_version(state: State, request: Request, kind: str, name: str, version: str) -> Answer:
    if not NAME.fullmatch(name):
        raise invalid(f"The name '{name}' is invalid.")
    properties, kept = request.body["properties"], _versions(state, kind).get(name, {}).get(version)
    if "dataUri" in properties:
        properties = properties | {"dataUri": long_uri(properties["dataUri"])}
    if kept and any(properties.get(each) != kept.get(each) for each in ("dataUri", "dataType", "image")):
        raise invalid("Asset paths cannot be updated.")
    if kind == "data":
        common = state.container(kind, name, dataType=properties["dataType"])
        if common["dataType"] != properties["dataType"]:
            raise invalid(f"The data type of '{name}' is '{common['dataType']}' and cannot be changed.")
    _versions(state, kind).setdefault(name, {})[version] = {"tags": {}, "properties": {}, **(kept or {}), **properties}
    content = resource(state, _versions(state, kind)[name][version], kind, name, "versions", version)
    return created(content, kept is None)


def _container(state: State, kind: str, name: str) -> dict[str, Any]:
    versions = _versions(state, kind)[name]
    numbers = {"latestVersion": next(reversed(versions), None), "nextVersion": next_version(versions)}
    defaults = {"description": None, "tags": None, "properties": None}
    if kind == "data":  # a test may have added it without
        state.container(kind, name, dataType=next(iter(versions.values()))["dataType"])
    return resource(state, {**defaults, **state.container(kind, name), **numbers}, kind, name)


def _versions(state: State, kind: str) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = getattr(state, kind)
    return found
