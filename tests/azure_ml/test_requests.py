"""What the emulator takes and what it refuses, asked without an SDK."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.azure_ml import WORKSPACE_ID, AzureMl, Failure, resource_id
from tests.azure_ml.conftest import ask, token
from tests.azure_ml.published import spec_folder

pytestmark = pytest.mark.slow

_ARM = "https://management.azure.com"
_JOB_VERSION = "?api-version=2025-01-01-preview"


def _put_job(name: str, **properties: Any) -> tuple[int, Any]:
    job = {"jobType": "Command", "command": "echo hello", "environmentId": "azureml:sklearn:1", **properties}
    return ask("PUT", f"{_ARM}{resource_id('jobs', name)}{_JOB_VERSION}", {"properties": job})


def test_a_job_is_accepted_with_what_the_service_adds(azure_ml: AzureMl) -> None:
    status, job = _put_job("train", resources={"instanceCount": 2}, identity={"identityType": "Managed"})
    assert (status, job["properties"]["status"]) == (201, "Starting")
    assert job["properties"]["outputs"]["default"]["uri"].endswith("/ExperimentRun/dcid.train")
    assert job["properties"]["resources"]["instanceCount"] == 2
    assert azure_ml.jobs["train"].wait() == "Completed"


def test_the_same_job_again_starts_nothing(azure_ml: AzureMl) -> None:
    assert [_put_job("train")[0] for _ in range(2)] == [201, 200]
    job = azure_ml.jobs["train"]
    assert job.wait() == "Completed"
    assert (job.submitted, job.log, job.history.count("Running")) == (2, "hello\n", 1)
    status, refusal = _put_job("train", command="echo other")
    assert (status, refusal["error"]["code"]) == (400, "UserError")


def test_a_lost_answer_is_no_lost_job(azure_ml: AzureMl) -> None:
    azure_ml.failures = [Failure(503, path="/jobs/", method="PUT", done=True)]
    assert _put_job("train")[0] == 503
    assert azure_ml.jobs["train"].wait() == "Completed"


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (
            {"outputs": {"o": {"jobOutputType": "uri_folder", "assetVersion": "1"}}},
            "Could not find member 'assetVersion'",
        ),
        ({"outputs": {"o": {"jobOutputType": "uri_folder", "name": "o"}}}, "name"),
        ({"command": None}, "command"),
        ({"environmentId": "azureml:nothing:1"}, "environment 'nothing:1' does not exist"),
        ({"computeId": resource_id("computes", "gpu")}, "compute 'gpu' does not exist"),
        (
            {"inputs": {"i": {"jobInputType": "uri_folder", "uri": resource_id("data", "d", "versions", "1")}}},
            "data asset 'd:1' does not exist",
        ),
    ],
)
def test_a_job_that_the_service_would_not_take_is_refused(azure_ml: AzureMl, job: dict[str, Any], message: str) -> None:
    status, refusal = _put_job("train", **job)
    assert (status, azure_ml.jobs) == (400, {})
    assert message in str(refusal)
    azure_ml.violations.clear()


@pytest.mark.skipif(not spec_folder().is_dir(), reason="the published types are not on this machine")
def test_what_is_not_of_the_published_types_is_refused_and_noted(azure_ml: AzureMl) -> None:
    status, refusal = _put_job("train", status="Completed")
    assert (status, azure_ml.jobs) == (400, {})
    assert "status is read-only" in str(refusal)
    with pytest.raises(AssertionError, match="status is read-only"):
        azure_ml.check()
    azure_ml.violations.clear()


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ({"uri": "azureml://datastores/nowhere/paths/a/"}, "'nowhere' .* does not exist"),
        ({"uri": "azureml://datastores/workspaceblobstore/paths/none/"}, "There is no data in .*/none/"),
        ({"uri": "azureml://jobs/none/outputs/a"}, "Job 'none' does not exist"),
        ({"command": "echo ${{inputs.other}}"}, "names what the job does not have.*inputs.other"),
        ({"command": "sleep 60", "limits": {"jobLimitsType": "Command", "timeout": "PT1S"}}, "timeout of PT1S"),
    ],
)
def test_why_a_job_fails_is_told(azure_ml: AzureMl, job: dict[str, Any], error: str) -> None:
    if uri := job.pop("uri", None):
        job["inputs"] = {"raw": {"jobInputType": "uri_folder", "uri": uri}}
    assert _put_job("train", **job)[0] == 201
    found = azure_ml.jobs["train"]
    assert found.wait() == "Failed"
    assert re.search(error, found.error)


def test_inputs_may_be_a_whole_datastore_or_the_output_of_a_job(azure_ml: AzureMl) -> None:
    azure_ml.add_blob_datastore("whole", "second")
    output = {"jobOutputType": "uri_folder", "mode": "Upload", "uri": "azureml://datastores/whole/paths/"}
    _put_job("a", command="echo 1 > ${{outputs.o}}/f", outputs={"o": output})
    assert azure_ml.jobs["a"].wait() == "Completed"
    for name, uri in {"b": "azureml://datastores/whole/paths/", "c": "azureml://jobs/a/outputs/o"}.items():
        inputs = {"i": {"jobInputType": "uri_folder", "mode": "Download", "uri": uri}}
        _put_job(name, command="cat ${{inputs.i}}/f", inputs=inputs)
        assert azure_ml.jobs[name].wait() == "Completed", azure_ml.jobs[name]
        assert azure_ml.jobs[name].log == "1\n"


def test_an_output_may_be_one_file(azure_ml: AzureMl) -> None:
    uri = "azureml://datastores/workspaceblobstore/paths/models/${{name}}.txt"
    output = {"jobOutputType": "uri_file", "mode": "Upload", "uri": uri, "assetName": "model"}
    _put_job("a", command="echo 1 > ${{outputs.o}}", outputs={"o": output})
    _put_job("b", command="true", outputs={"o": output})
    assert [azure_ml.jobs[each].wait() for each in "ab"] == ["Completed", "Failed"]
    assert azure_ml.jobs["b"].error == "Output 'o' was not written."
    _put_job("c", command="cat $AZURE_ML_INPUT_i", inputs={"i": {"jobInputType": "uri_file", "uri": "azureml:model:1"}})
    assert (azure_ml.jobs["c"].wait(), azure_ml.jobs["c"].log) == ("Completed", "1\n")
    assert list(azure_ml.data["model"]) == ["1"]


@pytest.mark.parametrize("permission", ["jobs/write", "jobs/read", "history/read", "listSecrets"])
def test_what_a_client_may_not_do_is_refused(azure_ml: AzureMl, permission: str) -> None:
    def asked() -> list[int]:
        return [
            _put_job("train")[0],
            ask("GET", f"{_ARM}{resource_id('jobs', 'train')}{_JOB_VERSION}")[0],
            ask("GET", f"https://eastus.api.azureml.ms/history/v1.0{WORKSPACE_ID}/runs/train/details")[0],
            ask(
                "POST",
                f"{_ARM}{resource_id('datastores', 'workspaceblobstore', 'listSecrets')}?api-version=2024-10-01-preview",
                {"expirableSecret": True, "expireAfterHours": 1},
            )[0],
        ]

    assert asked() == [201, 200, 200, 200]
    azure_ml.may -= {permission}
    assert sorted(asked()) == [200, 200, 200, 403]


@pytest.mark.parametrize(
    ("bearer", "scope"),
    [("", None), ("made up", None), (None, "https://storage.azure.com/.default")],
)
def test_only_tokens_for_it_are_taken(azure_ml: AzureMl, bearer: str | None, scope: str | None) -> None:
    bearer = token(scope) if scope else bearer
    for host in (_ARM, "https://eastus.api.azureml.ms/history/v1.0"):
        status, refusal = ask("GET", f"{host}{WORKSPACE_ID}/jobs{_JOB_VERSION}", bearer=bearer)
        assert (status, refusal["error"]["code"]) == (401, "InvalidAuthenticationToken")


def test_requests_say_their_api_version(azure_ml: AzureMl) -> None:
    status, refusal = ask("GET", f"{_ARM}{WORKSPACE_ID}/jobs")
    assert (status, refusal["error"]["code"]) == (400, "MissingApiVersionParameter")


def test_case_of_a_path_does_not_matter(azure_ml: AzureMl) -> None:
    url = f"{_ARM}{WORKSPACE_ID}/Datastores".replace("resourceGroups", "resourcegroups")
    status, content = ask("GET", f"{url}?api-version=2024-10-01-preview")
    assert (status, len(content["value"])) == (200, 2)


def test_other_clouds_are_there(azure_ml: AzureMl) -> None:
    url = f"https://management.usgovcloudapi.net{WORKSPACE_ID}?api-version=2024-10-01-preview"
    assert ask("GET", url)[0] == 401  # a token of the public cloud


def test_what_is_not_known_is_noted(azure_ml: AzureMl) -> None:
    assert ask("DELETE", f"{_ARM}{resource_id('jobs', 'a')}{_JOB_VERSION}")[0] == 404
    with pytest.raises(AssertionError, match="DELETE management"):
        azure_ml.check()
    azure_ml.unrouted.clear()


def test_failures_are_answered_with_their_headers_to_the_requests_they_are_for(azure_ml: AzureMl) -> None:
    azure_ml.failures = [Failure(429, {"Retry-After": "1"}, path="/data$")]
    url = f"{_ARM}{WORKSPACE_ID}/{{}}?api-version=2023-04-01-preview"
    assert [ask("GET", url.format(each))[0] for each in ("environments", "data", "data")] == [200, 429, 200]
    assert [each.status for each in azure_ml.requests] == [200, 429, 200]
    assert azure_ml.requests[0].api_version == "2023-04-01-preview"
