"""The checker of the published types finds what the service would refuse, and nothing in what the service recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.azure_ml.published import problems_of_answer, problems_of_request, spec_folder

pytestmark = pytest.mark.skipif(not spec_folder().is_dir(), reason=f"the published types are not in {spec_folder()}")

_JOB = (
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/team/jobs/train",
    "2025-01-01-preview",
)


def _job(**changes: Any) -> dict[str, Any]:
    properties = {
        "jobType": "Command",
        "command": "echo hello",
        "environmentId": "azureml:AzureML-sklearn:1",
        "environmentVariables": {"A": "1"},
        "inputs": {"raw": {"jobInputType": "uri_folder", "uri": "azureml://datastores/d/paths/p", "mode": "Direct"}},
        "outputs": {"model": {"jobOutputType": "uri_folder", "mode": "Upload", "assetName": "model"}},
    }
    return {"properties": {name: value for name, value in (properties | changes).items() if value is not None}}


def test_a_correct_job_has_no_problem() -> None:
    assert problems_of_request("PUT", *_JOB, _job()) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"command": None}, "body.properties.command is missing"),
        ({"command": ""}, "body.properties.command has a wrong length: 0"),
        ({"inputs": {"raw": {"jobInputType": "uri_folder"}}}, "body.properties.inputs.raw.uri is missing"),
        ({"inputs": {"n": {"jobInputType": "literal", "value": 3}}}, "inputs.n.value is 3, not of type str"),
        ({"jobType": "command"}, "body.properties.jobType is 'command', none of ['Command', 'Pipeline']"),
        ({"computeID": "c"}, "body.properties.computeID is no property of CommandJob"),
        ({"status": "Completed"}, "body.properties.status is read-only"),
        ({"environmentVariables": {"A": 1}}, "body.properties.environmentVariables.A is 1, not of type str"),
        (
            {"inputs": {"raw": {"jobInputType": "uri_folder", "uri": "azureml://x", "mode": "ro_mount"}}},
            "body.properties.inputs.raw.mode is 'ro_mount', none of ['ReadOnlyMount'",
        ),
    ],
)
def test_what_is_wrong_with_a_job_is_found(changes: dict[str, Any], found: str) -> None:
    [problem] = problems_of_request("PUT", *_JOB, _job(**changes))
    assert found in problem


def test_a_wrong_name_is_found() -> None:
    [problem] = problems_of_request("PUT", _JOB[0] + "!", _JOB[1], _job())
    assert "name is 'train!'" in problem


def test_an_api_version_that_nothing_is_published_of_is_found() -> None:
    assert problems_of_request("GET", _JOB[0], "2099-01-01", None) == [
        "nothing is published of Microsoft.MachineLearningServices at api-version '2099-01-01'"
    ]


def test_secrets_in_an_answer_are_found() -> None:
    secrets = {"secretsType": "AccountKey", "key": "x"}
    store = {"datastoreType": "AzureBlob", "credentials": {"credentialsType": "AccountKey", "secrets": secrets}}
    path = _JOB[0].replace("jobs/train", "datastores/store")
    assert problems_of_request("PUT", path, "2024-10-01-preview", {"properties": store}) == []
    [problem] = problems_of_answer("GET", path, "2024-10-01-preview", {"id": "x", "name": "y", "properties": store})
    assert "answer.properties.credentials.secrets is write-only" in problem


def test_only_the_hash_version_of_code_may_be_a_number() -> None:
    path, version = _JOB[0].replace("jobs/train", "codes/c/versions/1"), "2023-04-01"
    body = {"properties": {"codeUri": "https://x", "properties": {"hash_version": 202208}}}
    assert problems_of_request("PUT", path, version, body) == []
    body["properties"]["properties"] = {"hash_sha256": 1}
    assert len(problems_of_request("PUT", path, version, body)) == 1


def test_what_the_service_recorded_passes() -> None:
    entries = json.loads((spec_folder() / "recorded_excerpts.json").read_text())["entries"]
    good = [each for each in entries if each["status"] < 300]
    assert len(good) == 6
    for each in good:
        address = each["method"], each["path"], each["api-version"]
        assert problems_of_request(*address, each["request"]) == []
        assert problems_of_answer(*address, each["response"]) == []
