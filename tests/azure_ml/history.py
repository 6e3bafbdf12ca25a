"""The workspace's own host: what is known of runs, and where their data lies. It is no part of the published types."""

from __future__ import annotations

from typing import Any

from tests.azure_ml.job import Job
from tests.azure_ml.jobs import known_job
from tests.azure_ml.names import long_uri
from tests.azure_ml.resources import not_found
from tests.azure_ml.runner import LOG, log_path
from tests.azure_ml.state import Request, State
from tests.azurite.servers import Answer

_KINDS = {"uri_folder": "UriFolder", "uri_file": "UriFile", "mltable": "MLTable"}


def run_details(state: State, request: Request, name: str) -> Answer:
    job = known_job(state, name)
    logs = {LOG: state.storage.blob_url("first", "azureml", log_path(name))} if job.has_log else {}
    return Answer(_run(job) | {"logFiles": logs})


def run_data(state: State, request: Request) -> Answer:
    job = known_job(state, request.body["runId"])
    return Answer({"runMetadata": _run(job), "runDefinition": None, "jobSpecification": None})


def change_run(state: State, request: Request, experiment: str, name: str) -> Answer:
    job = known_job(state, name)
    for sent, kept in {"displayName": "displayName", "description": "description", "hidden": "isArchived"}.items():
        if sent in request.body:
            job.properties[kept] = request.body[sent]
    for each in ("tags", "properties"):
        job.properties[each] = {**job.properties[each], **(request.body.get(each) or {})}
    return Answer(_run(job))


def resolve_uris(state: State, request: Request) -> Answer:
    known = {
        asset: job.properties["outputs"][output] for job in state.jobs.values() for output, asset in job.assets.items()
    }
    values = {}
    for each in request.body["values"]:
        if each not in known:
            raise not_found("Data", each)
        values[each] = {"uri": long_uri(known[each]["uri"]), "type": _KINDS[known[each]["jobOutputType"]]}
    return Answer({"values": values})


def _run(job: Job) -> dict[str, Any]:
    outputs = {
        name: {"assetId": asset, "type": _KINDS[job.properties["outputs"][name]["jobOutputType"]]}
        for name, asset in job.assets.items()
    }
    error = {"code": "UserError", "message": job.error, "messageParameters": {}, "details": []}
    return {
        "runId": job.name,
        "status": job.status,
        "displayName": job.properties["displayName"],
        "experimentName": job.properties["experimentName"],
        "hidden": job.properties["isArchived"],
        "tags": job.properties["tags"],
        "properties": job.properties["properties"],
        "outputs": outputs,
        "error": {"error": error} if job.error else None,
    }
