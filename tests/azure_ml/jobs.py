"""Code and jobs, as the control plane takes and tells them."""

from __future__ import annotations

import re
import uuid
from typing import Any

from tests.azure_ml import runner
from tests.azure_ml.job import Job
from tests.azure_ml.names import API_HOST, GROUP, NAME, SUBSCRIPTION, WORKSPACE_ID, parts_of, resource_id
from tests.azure_ml.resources import created, invalid, not_found, page, resource, shown
from tests.azure_ml.state import Request, State
from tests.azurite.servers import Answer

_MEMBERS = {
    "CommandJob": {
        "codeId",
        "command",
        "componentId",
        "computeId",
        "description",
        "displayName",
        "distribution",
        "environmentId",
        "environmentVariables",
        "experimentName",
        "identity",
        "inputs",
        "isArchived",
        "jobType",
        "limits",
        "notificationSetting",
        "outputs",
        "parentJobName",
        "properties",
        "queueSettings",
        "resources",
        "services",
        "tags",
    },
    "UriFolderJobOutput": {"description", "jobOutputType", "uri", "mode", "assetName"},
    "JobInput": {"description", "jobInputType", "uri", "mode", "value"},
}
_REQUIRED = {
    "CommandJob": ("command", "environmentId"),
    "UriFolderJobOutput": ("jobOutputType",),
    "JobInput": ("jobInputType",),
}
_MAY_CHANGE = ("description", "displayName", "tags", "properties", "isArchived")


def find_code(state: State, request: Request, name: str) -> Answer:
    """Any code with the hash that is asked for."""
    wanted = request.query.get("hash")
    found = [
        resource(state, properties, "codes", code, "versions", version)
        for code, versions in state.codes.items()
        for version, properties in versions.items()
        if properties["properties"].get("hash_sha256") == wanted
    ]
    return page(state, request, found[:1])


def start_upload(state: State, request: Request, name: str, version: str) -> Answer:
    """A new container for one snapshot of code."""
    container = f"{uuid.uuid4()}-{uuid.uuid4().hex[:26]}"
    state.storage.make_container("first", container)
    uri = f"https://first.blob.core.windows.net:443/{container}"
    sas = state.storage.container_sas("first", container)
    blob = {
        "blobUri": uri,
        "storageAccountArmId": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
        "/Microsoft.Storage/storageAccounts/first",
        "credential": {"credentialType": "SAS", "sasUri": f"{uri}?{sas}"},
    }
    answer = {"pendingUploadId": str(uuid.uuid4()), "pendingUploadType": "TemporaryBlobReference"}
    return Answer(answer | {"blobReferenceForConsumption": blob})


def put_code(state: State, request: Request, name: str, version: str) -> Answer:
    sent, new = request.body["properties"], version not in state.codes.get(name, {})
    texts = {key: str(value) for key, value in (sent.get("properties") or {}).items()}
    kept = {"description": None, "tags": {}, "isArchived": False, **sent, "properties": texts}
    state.codes.setdefault(name, {})[version] = kept | {"provisioningState": "Succeeded"}
    return created(_code(state, name, version), new)


def get_code(state: State, request: Request, name: str, version: str) -> Answer:
    if version not in state.codes.get(name, {}):
        raise not_found("Code", f"{name}:{version}")
    return Answer(_code(state, name, version))


def _code(state: State, name: str, version: str) -> dict[str, Any]:
    return resource(state, state.codes[name][version], "codes", name, "versions", version)


def list_jobs(state: State, request: Request) -> Answer:
    found = [each for each in reversed(state.jobs.values()) if shown(request, each.properties)]
    return page(state, request, [_job(state, each) for each in found])


def get_job(state: State, request: Request, name: str) -> Answer:
    return Answer(_job(state, known_job(state, name)))


def put_job(state: State, request: Request, name: str) -> Answer:
    body = request.body["properties"]
    if not NAME.fullmatch(name):
        raise invalid(f"The name '{name}' is invalid.")
    if problems := _wrong_members(body):
        raise invalid("Request is invalid and/or missing fields.", *problems)
    if job := state.jobs.get(name):
        return _put_again(state, job, body)
    if problem := _missing(state, body):
        raise invalid(problem)
    job = state.jobs[name] = Job(name, body, _accepted(name, body))
    content = _job(state, job)  # before it runs
    runner.start(state, job)
    return created(content, True)


def cancel_job(state: State, request: Request, name: str) -> Answer:
    job = known_job(state, name)
    if job.ended:
        return Answer(None)
    job.cancel()
    return _poll(request, job)


def poll_cancel(state: State, request: Request, name: str) -> Answer:
    job = known_job(state, name)
    return Answer(None) if job.ended else _poll(request, job)


def known_job(state: State, name: str) -> Job:
    if name not in state.jobs:
        raise not_found("Job", name)
    job: Job = state.jobs[name]
    return job


def _poll(request: Request, job: Job) -> Answer:
    where = f"https://{request.host}{resource_id('jobs', job.name, 'cancelResults', '1')}"
    return Answer(None, 202, {"Location": f"{where}?api-version={request.api_version}", "Retry-After": "1"})


def _job(state: State, job: Job) -> dict[str, Any]:
    return resource(state, job.properties | {"status": job.status}, "jobs", job.name)


def _put_again(state: State, job: Job, body: dict[str, Any]) -> Answer:
    def fixed(properties: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in properties.items() if name not in _MAY_CHANGE}

    if fixed(body) != fixed(job.body):
        raise invalid(f"A job with the name '{job.name}' exists already, and cannot be changed.")
    job.submitted += 1
    changed = {name: body[name] for name in _MAY_CHANGE if name in body and name != "properties"}
    job.properties |= changed | {"properties": job.properties["properties"] | body.get("properties", {})}
    return created(_job(state, job), False)


def _wrong_members(body: dict[str, Any]) -> list[str]:
    parts = [("CommandJob", body)]
    parts += [("JobInput", each) for each in (body.get("inputs") or {}).values()]
    parts += [("UriFolderJobOutput", each) for each in (body.get("outputs") or {}).values()]
    unknown = [
        f"Could not find member '{name}' on object of type '{kind}'. Path '{name}'."
        for kind, part in parts
        for name in part
        if name not in _MEMBERS[kind]
    ]
    return unknown + [
        f"Required property '{name}' not found on object of type '{kind}'."
        for kind, part in parts
        for name in _REQUIRED[kind]
        if not part.get(name)
    ]


def _missing(state: State, body: dict[str, Any]) -> str | None:
    """What the job names and the workspace does not have."""
    match parts_of(body.get("computeId") or ""):
        case ["computes", compute] if compute not in state.computes:
            return f"The compute '{compute}' does not exist."
    named = re.fullmatch(r"azureml:(?!//)([^:]+):([^:]+)", body["environmentId"])
    match parts_of(body["environmentId"]) or (["environments", named[1], "versions", named[2]] if named else []):
        case ["environments", name, "versions", version]:
            curated = name.startswith("AzureML-")
            if not curated and version not in state.environments.get(name, {}):
                return f"The environment '{name}:{version}' does not exist."
    for name, each in (body.get("inputs") or {}).items():
        match parts_of(each.get("uri") or ""):
            case ["data", asset, "versions", version] if version not in state.data.get(asset, {}):
                return f"Input '{name}': the data asset '{asset}:{version}' does not exist."
    match parts_of(body.get("codeId") or ""):
        case ["codes", code, "versions", version] if version not in state.codes.get(code, {}):
            return f"The code '{code}:{version}' does not exist."
    return None


def _accepted(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """The properties of a new job, with what the service adds."""
    empty = {"port": None, "status": None, "errorMessage": None, "properties": None, "nodes": None}
    tracking, studio = f"azureml://{API_HOST}/mlflow/v1.0{WORKSPACE_ID}?", f"https://ml.azure.com/runs/{name}"
    cluster = {
        "_azureml.ComputeTargetType": "amlctrain",
        "_azureml.ClusterName": (parts_of(body.get("computeId") or "") or [""])[-1],
    }
    default = {
        "description": None,
        "uri": f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{name}",
        "assetName": None,
        "mode": "ReadWriteMount",
        "jobOutputType": "uri_folder",
    }
    outputs = {key: _accepted_output(name, key, each) for key, each in (body.get("outputs") or {}).items()}
    modes = {
        key: each if each["jobInputType"] == "literal" else {"description": None, "mode": "ReadOnlyMount", **each}
        for key, each in (body.get("inputs") or {}).items()
    }
    defaults: dict[str, Any] = dict.fromkeys(
        ["description", "identity", "componentId", "notificationSetting", "codeId", "distribution"]
    )
    return {
        **defaults,
        "limits": None,
        "tags": {},
        "experimentName": "Default",
        "displayName": name,
        "isArchived": False,
        "parameters": {},
        "environmentVariables": {},
        "queueSettings": {"jobTier": "Null"},
        "services": {
            "Tracking": {**empty, "jobServiceType": "Tracking", "endpoint": tracking},
            "Studio": {**empty, "jobServiceType": "Studio", "endpoint": f"{studio}?wsid={WORKSPACE_ID}"},
        },
        **body,
        "properties": {**(body.get("properties") or {}), **cluster},
        "resources": {"instanceCount": 1, "shmSize": "2g", **(body.get("resources") or {})},
        "inputs": modes,
        "outputs": {"default": default, **outputs},
    }


def _accepted_output(job: str, name: str, output: dict[str, Any]) -> dict[str, Any]:
    uri = output.get("uri") or "azureml://datastores/${{default_datastore}}/paths/azureml/${{name}}/${{output_name}}/"
    known = {"name": job, "output_name": name, "default_datastore": "workspaceblobstore"}
    for key, value in known.items():
        uri = re.sub(r"\$\{\{\s*" + key + r"\s*\}\}", value, uri)
    return {"description": None, "assetName": None, "mode": "ReadWriteMount", **output, "uri": uri}
