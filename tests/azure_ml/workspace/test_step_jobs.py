"""Steps as Azure ML jobs: what their scripts find, what is published, and what is left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_aml_data import Dataset, OutputFileDatasetConfig, Workspace
from airflow_aml_data.core.azureml.jobs import JobSettings
from airflow_aml_data.core.in_job.told import REPORT, TOLD
from airflow_aml_data.core.job import finish_step
from airflow_aml_data.errors import (
    AzureMlNotFound,
    AzureMlRefused,
    InvalidDeclaration,
    JobFailed,
    OutputConflict,
    OutputLost,
    OutputUnusable,
    RunCanceled,
    StepFailed,
)
from tests.azure_ml import AzureMl, Failure
from tests.azure_ml.workspace.connected import connect
from tests.azure_ml.workspace.steps import CLUSTER, JobSteps
from tests.core.steps import READ, WRITE

pytestmark = pytest.mark.slow

TABLE = "\n".join(["number,name", *(f"{number},{'ab'[number % 2]}" for number in range(1000))])

SHOW_INPUTS = """
    import json, os, sys
    from azureml.core import Run
    run = Run.get_context()
    seen = {}
    for name, value in run.input_datasets.items():
        if isinstance(value, str):
            found = [os.path.join(folder, each) for folder, _, names in os.walk(value) for each in names]
            seen[name] = sorted(os.path.relpath(each, value) for each in found) if os.path.isdir(value) else open(value).read()
        elif name.startswith("table"):
            seen[name] = value.to_pandas_dataframe().to_csv(index=False)
        else:
            seen[name] = value.to_path()
    with open(os.path.join(sys.argv[1], "seen.json"), "w") as file:
        json.dump(seen, file, sort_keys=True)
"""


@pytest.fixture
def steps(connected: Workspace, tmp_path: Path) -> Iterator[JobSteps]:
    return JobSteps(connected, tmp_path)


@pytest.fixture
def data(steps: JobSteps, tmp_path: Path) -> Any:
    """The default datastore, with a table and pictures."""
    folder = tmp_path / "data"
    for path, content in {
        "table/one.csv": TABLE,
        "table/two.csv": "number,name\n7,c",
        "animals/dog/1.jpg": "dog one",
        "animals/dog/2.jpg": "dog two",
        "animals/cat/a b.jpg": "cat",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    store = steps.workspace.get_default_datastore()
    store.upload(folder)
    return store


def text_of(reference: Any, folder: Path) -> dict[str, str]:
    files = [Path(each) for each in reference.download(folder)]
    return {each.relative_to(folder).as_posix(): each.read_text() for each in files}


def leftovers(steps: JobSteps) -> list[str]:
    """What lies in the reserved folder beside manifests."""
    found = steps.connected.storage(None).list_reserved(".aml_data/staging")
    return [each.path for each in found if steps.folder.name in each.path]


def stored(steps: JobSteps) -> list[str]:
    """What lies at the default destinations of the test's steps."""
    found = steps.connected.storage(None).list_files("dataset")
    return [each.path for each in found if steps.folder.name in each.path]


def test_what_a_job_writes_is_what_the_next_step_reads_here_and_there(steps: JobSteps, azure_ml: AzureMl) -> None:
    written = steps.run_job(WRITE, arguments=[OutputFileDatasetConfig("out").as_upload(), "a.txt", "b/c.txt"])

    (reference,) = written.outputs
    assert reference.to_path() == ["/a.txt", "/b/c.txt"]
    it = reference.as_dataset().as_named_input("it")
    steps.run(READ, arguments=[it.as_download()], task_id="here")
    steps.run_job(READ, arguments=[it.as_mount()], task_id="there")
    assert sorted(steps.lines) == ["a.txt new a.txt", "b/c.txt new b/c.txt"]
    assert sorted(steps.log("there").splitlines()) == sorted(steps.lines)
    assert leftovers(steps) == []


def test_every_kind_of_input_is_the_same_there_as_here(steps: JobSteps, data: Any, tmp_path: Path) -> None:
    """Folders, files, globs, lists, samples, splits, tables made into files, outputs, several at once."""
    files = Dataset.File.from_files
    made = steps.write("x.csv", "y/z.csv").as_dataset()
    table = Dataset.Tabular.from_delimited_files((data, "table/*.csv"), include_path=True)
    train, test = table.take_sample(0.5, seed=3).random_split(0.7, seed=3)
    some, others = files((data, "animals")).random_split(0.5, seed=5)
    inputs = [
        files((data, "animals")).as_named_input("folder").as_mount(),
        files((data, "animals")).as_named_input("copied").as_download(),
        files((data, "animals/dog/1.jpg")).as_named_input("file").as_mount(),
        files((data, "animals/cat/a b.jpg")).as_named_input("copied_file").as_download(),
        files((data, "animals/**/*.jpg")).as_named_input("globbed").as_mount(),
        files([(data, "animals/dog/2.jpg"), (data, "animals/cat")]).as_named_input("listed").as_download(),
        some.as_named_input("some").as_mount(),
        others.as_named_input("others").as_download(),
        files((data, "animals")).take(0).as_named_input("none").as_mount(),
        files((data, "animals")).filter(files((data, "x")).file_metadata("Size") > 4).as_named_input("large"),
        train.as_named_input("table_train"),
        test.as_named_input("table_test"),
        Dataset.Tabular.from_delimited_files((data, "table/two.csv")).as_named_input("table_of_one_file"),
        train.to_csv_files().as_named_input("made_files").as_mount(),
        made.as_named_input("made").as_mount(),
        made.as_named_input("made_direct"),
        files((data, "animals")).as_named_input("placed").as_mount("here/it is"),
    ]
    output = OutputFileDatasetConfig("seen").as_upload()

    here = steps.run(SHOW_INPUTS, arguments=[output], inputs=inputs, task_id="here")
    there = steps.run_job(SHOW_INPUTS, arguments=[output], inputs=inputs, task_id="there")

    seen = [
        json.loads(text_of(each.outputs[0], tmp_path / str(number))["seen.json"])
        for number, each in enumerate((here, there))
    ]
    assert seen[0] == seen[1]
    assert len(seen[0]) == len(inputs)
    assert seen[0]["table_train"].count("\n") > 300
    assert seen[0]["some"] + seen[0]["others"] and sorted(seen[0]["some"] + seen[0]["others"]) == seen[0]["folder"]


def test_arguments_parameters_and_variables_arrive_as_they_are(steps: JobSteps, azure_ml: AzureMl) -> None:
    script = """
        import json, os, sys
        from azureml.core import Run
        run = Run.get_context()
        out = run.output_datasets["out"]
        assert sys.argv[3] == out == os.environ["out"] == os.environ["AZURE_ML_OUTPUT_out"]
        run.log("arguments", sys.argv[1:3] + sys.argv[4:])
        run.log("lr", os.environ["AML_PARAMETER_my_lr"])
        run.log("unit", os.environ["UNIT"])
        run.log("task", os.environ["AZUREML_RUN_ID"] == run.id and run.get_details()["runId"].split(".")[2])
        run.tag("best", "yes")
        run.parent.log("shared", 3)
        os.makedirs("outputs")
        open("outputs/model.txt", "w").write("model")
        open(out + "/a.txt", "w").write("a")
    """
    odd = ['it\'s "odd" $HOME `x` \\\\ *', "ä\n\tb"]

    result = steps.run_job(
        script,
        arguments=[*odd, OutputFileDatasetConfig("out").as_upload(), 5, None],
        parameters={"my lr": 0.1},
        environment_variables={"UNIT": "a b"},
        task_id="odd",
    )

    assert result.metrics == {"arguments": [*odd, "5", "None"], "lr": "0.1", "unit": "a b", "task": "odd", "shared": 3}
    assert result.details == {"tags": {"best": "yes"}}
    assert [each.name for each in result.outputs] == ["out", "run_files"]
    assert result.outputs[1].to_path() == ["/outputs/model.txt", "/parent_run.jsonl"]
    later = steps.run_job(
        "from azureml.core import Run\nr = Run.get_context()\nr.log('seen', r.parent.get_metrics()['shared'])",
        task_id="later",
    )
    assert later.metrics == {"seen": 3}
    (job,) = [each for each in azure_ml.jobs.values() if "odd" in each.name]
    assert job.properties["environmentVariables"]["AML_PARAMETER_my_lr"] == "0.1"
    assert job.properties["experimentName"] == "dag"
    assert {each.name for each in steps.connected.catalog.find_outputs()} == {"out", "run_files"}


def test_a_shell_command_finds_its_inputs_and_outputs(steps: JobSteps, data: Any, tmp_path: Path) -> None:
    animals = Dataset.File.from_files((data, "animals")).as_named_input("animals").as_mount()
    chosen = Dataset.File.from_files((data, "animals/dog/*.jpg")).as_named_input("path").as_download()
    out = OutputFileDatasetConfig("out").as_upload()

    result = steps.run_job_command(
        ["cat $animals/dog/1.jpg > $out/it && ls", chosen, "> $out/chosen && test -d", out, "&& echo '${x}'"],
        inputs=[animals],
    )

    assert text_of(result.outputs[0], tmp_path / "out") == {"it": "dog one", "chosen": "1.jpg\n2.jpg\n"}


def test_the_same_sources_are_uploaded_once(steps: JobSteps, azure_ml: AzureMl) -> None:
    for number in (1, 2):
        steps.run_job("print('hello')", run_id=f"r{number}", task_id="same")

    uploads = [each for each in azure_ml.requests if each.path.endswith("startPendingUpload")]
    assert len(uploads) == 1


def test_a_failing_script_publishes_nothing_and_says_what_it_printed(steps: JobSteps, caplog: Any) -> None:
    script = "import sys; open(sys.argv[1] + '/a', 'w').write('a'); print('the last words'); sys.exit(3)"
    out = OutputFileDatasetConfig("out").as_upload()

    with pytest.raises(StepFailed, match="exit code 3"):
        steps.run_job(script, arguments=[out.register_on_complete("never")])

    assert steps.states() == ["abandoned"]
    assert leftovers(steps) == []
    assert stored(steps) == []
    assert "never" not in steps.workspace.datasets
    assert "the last words" in caplog.text


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        ("from azureml.core import Run; Run.get_context().fail('not good enough')", StepFailed, "not good enough"),
        ("from azureml.core import Run; Run.get_context().cancel()", RunCanceled, "cancelled its run"),
        ("pass", OutputUnusable, "'out' holds no file"),
        ("import os, sys; os.symlink('/etc/passwd', sys.argv[1] + '/x')", OutputUnusable, "symbolic link"),
        ("import sys; sys.exit('${{')", StepFailed, "exit code 1"),
    ],
)
def test_what_a_script_says_about_its_end_is_known_here(
    script: str, error: type[Exception], says: str, steps: JobSteps
) -> None:
    with pytest.raises(error, match=says):
        steps.run_job(script, arguments=[OutputFileDatasetConfig("out").as_upload()])

    assert steps.states() == ["abandoned"]


def test_a_fixed_destination_changes_as_a_whole_or_not_at_all(steps: JobSteps, data: Any, tmp_path: Path) -> None:
    """The conflict table of v1, also where the service would have written over files."""
    fixed = OutputFileDatasetConfig("out", destination=(data, "fixed"))
    steps.run_job(WRITE, arguments=[fixed.as_upload(), "a.txt"], run_id="r1")
    storage = steps.connected.storage(None)
    before = list(storage.list_files("fixed"))

    with pytest.raises(OutputConflict, match=r"fixed/a\.txt"):
        steps.run_job(WRITE, arguments=[fixed.as_upload(), "a.txt", "b.txt"], run_id="r2")
    assert list(storage.list_files("fixed")) == before
    third = steps.run_job(WRITE, arguments=[fixed.as_upload(overwrite=True), "b.txt"], run_id="r3").outputs[0]

    assert third.to_path() == ["/b.txt"]
    assert {each.path for each in storage.list_files("fixed")} == {"fixed/a.txt", "fixed/b.txt"}
    assert leftovers(steps) == []


def test_a_mounted_output_at_a_fixed_destination_is_what_the_job_wrote(steps: JobSteps, data: Any) -> None:
    fixed = OutputFileDatasetConfig("out", destination=(data, "fixed"))
    steps.run_job(WRITE, arguments=[fixed, "a.txt"], run_id="r1")

    second = steps.run_job(WRITE, arguments=[fixed, "b.txt"], run_id="r2").outputs[0]

    assert second.to_path() == ["/b.txt"]


def test_a_script_may_make_its_output_a_file(steps: JobSteps, tmp_path: Path) -> None:
    """The article's script does."""
    article = """
        import os, sys
        os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
        open(sys.argv[1], "w").write("the article")
    """
    made = steps.run_job(article, arguments=[OutputFileDatasetConfig("out").as_upload()]).outputs[0]

    read = steps.run_job(
        "import sys; print(open(sys.argv[1]).read()); from azureml.core import Run; Run.get_context().log('it', open(sys.argv[1]).read())",
        arguments=[made.as_dataset().as_named_input("it").as_mount()],
        task_id="read",
    )
    assert read.metrics == {"it": "the article"}
    assert stored(steps) == [made.path]


def test_a_folder_of_the_authors_own_is_published(steps: JobSteps, tmp_path: Path) -> None:
    script = "import os; os.makedirs('mine/deep'); open('mine/a.csv', 'w').write('a'); open('mine/deep/b.txt', 'w').write('b')"
    output = OutputFileDatasetConfig("out", source="mine").as_upload(source_globs="*.csv")

    assert steps.run_job(script, outputs=[output]).outputs[0].to_path() == ["/a.csv"]


def test_the_service_is_told_of_machines_identity_time_and_tags(steps: JobSteps, azure_ml: AzureMl) -> None:
    settings = JobSettings(
        compute="serverless",
        image="registry/image:1",
        instance_count=2,
        instance_type="Standard_DS3_v2",
        identity="managed",
        timeout_seconds=3600,
        shm_size="8g",
        tags={"dag_id": "dag"},
    )

    steps.run_job("print()", settings=settings)

    (job,) = azure_ml.jobs.values()
    assert "computeId" not in job.body
    assert job.body["limits"]["timeout"] == "PT1H"
    assert job.body["identity"]["identityType"] == "Managed"
    assert job.body["resources"] == {
        "instanceCount": 2,
        "instanceType": "Standard_DS3_v2",
        "shmSize": "8g",
        "properties": {},
    } | {
        key: value
        for key, value in job.body["resources"].items()
        if key not in ("instanceCount", "instanceType", "shmSize")
    }
    assert job.body["tags"] == {"dag_id": "dag"}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (
            {"settings": JobSettings(compute="gpu", environment="sklearn:1")},
            AzureMlNotFound,
            "'gpu'.*there are: cpu-cluster",
        ),
        ({"settings": JobSettings(compute="cpu-cluster", environment="sklearn:9")}, AzureMlNotFound, "sklearn"),
        (
            {"settings": JobSettings(compute="cpu-cluster", environment="sklearn")},
            InvalidDeclaration,
            "or has no version",
        ),
        (
            {"settings": JobSettings(compute="../../jobs", environment="sklearn:1")},
            InvalidDeclaration,
            "can be no compute",
        ),
        (
            {"settings": JobSettings(compute="cpu-cluster", environment="../x:1")},
            InvalidDeclaration,
            "is none, or has no",
        ),
        ({"arguments": ["${{secret}}"]}, InvalidDeclaration, "placeholder"),
        ({"workspace": {"workspace_name": "another"}}, AzureMlRefused, "another"),
        ({"workspace": {"password": "expired"}}, AzureMlRefused, "AADSTS7000215"),
        ({"may": "jobs/write"}, AzureMlRefused, "AzureML Data Scientist"),
        ({"may": "computes/read"}, AzureMlRefused, "AzureML Data Scientist"),
        (
            {
                "workspace": {
                    "datastores": {"folder": {"kind": "local", "root": "/tmp/x"}},
                    "default_datastore": "folder",
                }
            },
            InvalidDeclaration,
            "is a folder of this machine",
        ),
    ],
)
def test_what_cannot_work_is_one_clear_error_before_code_is_uploaded(
    change: dict[str, Any],
    error: type[Exception],
    says: str,
    steps: JobSteps,
    azure_ml: AzureMl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "workspace" in change:
        connect(monkeypatch, **change.pop("workspace"))
    azure_ml.may.discard(permission := change.pop("may", ""))
    azure_ml.requests.clear()

    with pytest.raises(error, match=says) as raised:
        steps.submit("print()", outputs=[OutputFileDatasetConfig("out").as_upload()], **change)

    assert "\n" not in str(raised.value)
    assert azure_ml.jobs == {}
    if permission != "jobs/write":  # that one shows only when the job is sent
        assert [each.path for each in azure_ml.requests if "/codes/" in each.path] == []
        assert steps.states() in ([], ["abandoned"])


def test_a_job_whose_answer_is_lost_is_there_once(steps: JobSteps, azure_ml: AzureMl) -> None:
    azure_ml.failures += [Failure(503, path="/jobs/", method="PUT", done=True)] * 2

    result = steps.run_job(WRITE, arguments=[OutputFileDatasetConfig("out").as_upload()])

    assert azure_ml.failures == []
    (job,) = azure_ml.jobs.values()
    assert (job.status, job.history.count("Running")) == ("Completed", 1)
    assert result.outputs[0].to_path() == ["/a.txt"]


def test_a_file_that_was_damaged_on_its_way_is_found_out(steps: JobSteps, azure_ml: AzureMl) -> None:
    declared, step = steps.submit(WRITE, arguments=[OutputFileDatasetConfig("out").as_upload(), "a.txt"])
    state = steps.wait(step)
    _, path = step.outputs["out"]
    steps.connected.storage(None).write_bytes(f"{path}/a.txt", b"old a.txt")

    with pytest.raises(OutputLost, match=r"a\.txt.*another content"):
        finish_step(steps.connected, declared, step, state)

    assert steps.states() == ["abandoned"]


@pytest.mark.parametrize("report", [b"", b'{"version": 1, "exit_c', b'{"version": 2}', b'{"version": 1}'])
def test_a_damaged_report_publishes_nothing(report: bytes, steps: JobSteps, azure_ml: AzureMl) -> None:
    declared, step = steps.submit(WRITE, arguments=[OutputFileDatasetConfig("out").as_upload(), "a.txt"])
    state = steps.wait(step)
    (path,) = [each for each in leftovers(steps) if each.endswith("report.json")]
    steps.connected.storage(None).write_bytes(path, report)

    with pytest.raises(OutputLost, match="is damaged"):
        finish_step(steps.connected, declared, step, state)

    assert steps.states() == ["abandoned"]
    assert stored(steps) == []


def test_a_job_that_loses_a_file_on_its_way_is_found_out(steps: JobSteps, azure_ml: AzureMl) -> None:
    declared, step = steps.submit(WRITE, arguments=[OutputFileDatasetConfig("out").as_upload(), "a.txt", "b.txt"])
    state = steps.wait(step)
    _, path = step.outputs["out"]
    steps.connected.storage(None).delete_files([f"{path}/b.txt"])

    with pytest.raises(OutputLost, match=r"b\.txt.*has no such file"):
        finish_step(steps.connected, declared, step, state)

    assert steps.states() == ["abandoned"]


def test_a_job_whose_input_is_gone_fails_and_says_so(steps: JobSteps, azure_ml: AzureMl, data: Any) -> None:
    azure_ml.hold.at("Queued")
    animals = Dataset.File.from_files((data, "animals/dog")).as_named_input("animals").as_mount()
    declared, step = steps.submit("print()", inputs=[animals])
    storage = steps.connected.storage(None)
    storage.delete_files([each.path for each in storage.list_files("animals/dog")])
    azure_ml.hold.release()

    with pytest.raises(JobFailed, match=r"ended as Failed: .*animals/dog"):
        finish_step(steps.connected, declared, step, steps.wait(step))


def test_a_script_is_told_what_a_job_does_not_reach(steps: JobSteps, data: Any, caplog: Any) -> None:
    script = """
        from azureml.core import Dataset, Run
        run = Run.get_context()
        for reach in (lambda: Dataset.get_by_name(run.experiment.workspace, "x").to_path(),
                      lambda: run.experiment.workspace.get_default_datastore().upload(".")):
            try:
                reach()
            except AttributeError as error:
                print("told:", error)
    """

    steps.run_job(script, inputs=[Dataset.File.from_files((data, "animals")).as_named_input("animals")], task_id="tell")

    assert steps.log("tell").count("told:") == 2


def test_nothing_secret_travels_with_a_job(
    steps: JobSteps, azure_ml: AzureMl, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the address of a repository that the worker is in."""
    (repository := tmp_path / "repository").mkdir()
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    address = "https://me:the secret@example.com/dags.git"
    subprocess.run(["git", "-C", str(repository), "remote", "add", "origin", address], check=True)
    monkeypatch.chdir(repository)
    animals = Dataset.File.from_files((data, "animals")).as_named_input("animals")
    azure_ml.hold.at("Queued")
    _, step = steps.submit("print()", inputs=[animals], outputs=[OutputFileDatasetConfig("out").as_upload()])

    told = b"".join(steps.connected.storage(None).read_bytes(path) for path in leftovers(steps))
    (job,) = azure_ml.jobs.values()
    for secret in ("the secret", "example.com", "sig=", azure_ml.azurite.keys["first"], "sqlite"):
        assert secret not in json.dumps(job.body)
        assert secret.encode() not in told
    assert {TOLD, REPORT} <= job.body["inputs"].keys() | job.body["outputs"].keys()
    assert CLUSTER.compute in job.body["computeId"]
    azure_ml.hold.release()
    steps.wait(step)
