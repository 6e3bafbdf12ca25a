"""Jobs of the emulator, submitted by the unmodified SDK, run for real."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.azure_ml import LONG, AzureMl, Job
from tests.azure_ml.conftest import history

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

pytestmark = pytest.mark.slow


def _submit(ml: AzureMl, client: MLClient, command: str, name: str = "train", **more: Any) -> Job:
    from azure.ai.ml import command as command_job

    job = {"experiment_name": "test", "compute": "cpu-cluster", "environment": "azureml:sklearn:1", **more}
    client.jobs.create_or_update(command_job(name=name, command=command, **job))
    return ml.jobs[name]


def _put(ml: AzureMl, path: str, content: str) -> None:
    ml.add_blob_datastore("landing", "second")
    with ml.storage.container("second", "landing") as container:
        container.upload_blob(path, content.encode(), overwrite=True)


def _read(ml: AzureMl, account: str, container: str, path: str) -> str:
    with ml.storage.container(account, container) as client:
        return client.download_blob(path).readall().decode()


def _runs(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_data_goes_through_two_steps(azure_ml: AzureMl, client: MLClient, tmp_path: Path) -> None:
    from azure.ai.ml import Input, Output

    _put(azure_ml, "raw/numbers.txt", "1\n2\n")
    source = tmp_path / "src"
    source.mkdir()
    (source / "double.py").write_text(
        "import sys, pathlib\n"
        "numbers = pathlib.Path(sys.argv[1], 'numbers.txt').read_text().split()\n"
        "pathlib.Path(sys.argv[2], 'numbers.txt').write_text(' '.join(str(2 * int(each)) for each in numbers))\n"
    )
    double = "python double.py ${{inputs.raw}} ${{outputs.doubled}}"
    raw = Input(type="uri_folder", path="azureml://datastores/landing/paths/raw/", mode="ro_mount")
    where = "azureml://datastores/landing/paths/out/${{name}}/${{output_name}}"
    output = Output(type="uri_folder", mode="upload", name="doubled", path=where)
    first = _submit(azure_ml, client, double, "a", code=str(source), inputs={"raw": raw}, outputs={"doubled": output})
    assert first.wait() == "Completed", first
    assert first.history == ["Starting", "Queued", "Preparing", "Running", "Finalizing", "Completed"]
    latest = client.data.get("doubled", label="latest")
    assert (latest.version, latest.path) == ("1", f"{LONG}datastores/landing/paths/out/a/doubled")

    raw = Input(type="uri_folder", path="doubled@latest", mode="download")
    output = Output(type="uri_folder")
    second = _submit(azure_ml, client, double, "b", code=str(source), inputs={"raw": raw}, outputs={"doubled": output})
    assert second.wait() == "Completed", second
    found = azure_ml.datastores["workspaceblobstore"]["containerName"]
    assert _read(azure_ml, "first", found, "azureml/b/doubled/numbers.txt") == "4 8"
    assert sum(each.path.endswith("startPendingUpload") for each in azure_ml.requests) == 1  # the code is the same

    client.jobs.download("b", output_name="doubled", download_path=tmp_path / "b")
    assert (tmp_path / "b" / "named-outputs" / "doubled" / "numbers.txt").read_text() == "4 8"


def test_a_job_that_fails_keeps_its_log_and_writes_no_output(azure_ml: AzureMl, client: MLClient) -> None:
    from azure.ai.ml import Output

    written = {
        "up": Output(type="uri_folder", mode="upload", name="up", path="azureml://datastores/landing/paths/up"),
        "mounted": Output(type="uri_folder", mode="rw_mount", path="azureml://datastores/landing/paths/mounted"),
    }
    _put(azure_ml, "unrelated", "")
    command = "echo a > ${{outputs.up}}/f; echo b > ${{outputs.mounted}}/f; echo oh no >&2; exit 3"
    job = _submit(azure_ml, client, command, outputs=written)
    assert (job.wait(), job.exit_code, job.log) == ("Failed", 3, "oh no\n")
    assert _read(azure_ml, "second", "landing", "mounted/f") == "b\n"
    assert azure_ml.data == {}
    with azure_ml.storage.container("second", "landing") as container:
        assert [each.name for each in container.list_blobs(name_starts_with="up")] == []
    run = history("/runs/train/details")
    assert "status code 3" in run["error"]["error"]["message"]
    with urllib.request.urlopen(run["logFiles"]["user_logs/std_log.txt"]) as log:
        assert log.read() == b"oh no\n"


def test_the_log_grows_while_the_job_runs(azure_ml: AzureMl, client: MLClient, tmp_path: Path) -> None:
    job = _submit(azure_ml, client, f"echo begun; until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo done")
    job.wait_for_log("begun")
    with urllib.request.urlopen(history("/runs/train/details")["logFiles"]["user_logs/std_log.txt"]) as log:
        assert log.read() == b"begun\n"
    assert client.jobs.get("train").status == "Running"
    (tmp_path / "go").touch()
    assert (job.wait(), job.log) == ("Completed", "begun\ndone\n")


def test_a_cancelled_job_ends_and_nothing_of_it_runs_on(azure_ml: AzureMl, client: MLClient) -> None:
    job = _submit(azure_ml, client, "sleep 60 & echo $! started; wait")
    job.wait_for_log("started")
    client.jobs.begin_cancel("train").result()
    assert job.history[-2:] == ["CancelRequested", "Canceled"]
    assert job.cancel_requests == 1
    assert not _runs(int(job.log.split()[0]))
    client.jobs.begin_cancel("train").result()  # as often as one likes
    assert job.cancel_requests == 1


@pytest.mark.parametrize("status", ["Queued", "Running"])
def test_a_held_job_waits_until_it_is_released_or_cancelled(azure_ml: AzureMl, client: MLClient, status: Any) -> None:
    azure_ml.hold.at(status)
    jobs = [_submit(azure_ml, client, "echo hello", name) for name in ("a", "b")]
    for each in jobs:
        each.wait(status)
    client.jobs.begin_cancel("a").result()
    azure_ml.hold.release()
    assert [each.wait() for each in jobs] == ["Canceled", "Completed"]
    assert [each.log for each in jobs] == ["", "hello\n"]


def test_the_environment_of_a_job_is_its_own(azure_ml: AzureMl, client: MLClient) -> None:
    from azure.ai.ml import Input

    _put(azure_ml, "raw/a.txt", "1")
    inputs = {
        "folder": Input(type="uri_folder", path="azureml://datastores/landing/paths/raw/", mode="direct"),
        "file": Input(type="uri_file", path="https://second.blob.core.windows.net/landing/raw/a.txt"),
        "number": 3,
    }
    code = "import importlib.util as u, os, json, pandas, pyarrow; print(json.dumps([dict(os.environ), [bool(u.find_spec(n)) for n in ('airflow', 'airflow_aml_data', 'azureml')]]))"  # noqa: E501
    command = f'echo ${{{{inputs.number}}}} ${{{{inputs.folder}}}} ${{{{inputs.file}}}}; python -c "{code}"; ls -l ${{{{inputs.file}}}}'
    job = _submit(azure_ml, client, command, inputs=inputs, environment_variables={"MINE": "1"})
    assert job.wait() == "Completed", job
    first, second, third = job.log.splitlines()
    environment, found = json.loads(second)
    assert first == f"3 azureml://datastores/landing/paths/raw/ {environment['AZURE_ML_INPUT_file']}"
    assert third.startswith("-r--r--r--")
    assert found == [False, False, False]
    assert environment["MINE"] == "1"
    assert environment["AZUREML_RUN_ID"] == "train"
    assert environment["AZURE_ML_INPUT_folder"] == "azureml://datastores/landing/paths/raw/"
    assert not [each for each in environment if each.startswith(("AIRFLOW", "PYTHON"))]
    assert environment["HOME"] != os.environ["HOME"]


def test_a_job_that_goes_elsewhere_is_found_out(azure_ml: AzureMl, client: MLClient) -> None:
    command = "python -c 'import urllib.request as u; u.urlopen(\"https://example.com\")'"
    assert _submit(azure_ml, client, command).wait() == "Failed"
    assert azure_ml.refused == ["CONNECT example.com:443"]
    with pytest.raises(AssertionError, match=r"example\.com"):
        azure_ml.check()
    azure_ml.refused.clear()


def test_an_archived_job_is_in_no_list(azure_ml: AzureMl, client: MLClient) -> None:
    for name in ("a", "b"):
        assert _submit(azure_ml, client, "true", name).wait() == "Completed"
    client.jobs.archive("a")
    assert [each.name for each in client.jobs.list()] == ["b"]
    assert client.jobs.get("a").status == "Completed"


def test_a_job_that_does_not_heed_its_cancelling_is_killed(azure_ml: AzureMl, client: MLClient) -> None:
    job = _submit(azure_ml, client, "trap 'echo no' TERM; echo started; while true; do sleep 0.1; done")
    job.wait_for_log("started")
    client.jobs.begin_cancel("train").result()
    assert (job.status, job.exit_code) == ("Canceled", -9)
    assert "no" in job.log.splitlines()
