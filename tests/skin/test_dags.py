"""The example DAGs, from the real ``dags/`` folder, on the data they are shipped for.

All of them run in one workspace, the first one first, as a reader would; each test looks at the result of one. They do so twice:
in the embedded workspace, and with the workspace's connection switched to Azure storage.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError

from airflow_aml_data import Dataset, Workspace
from tests.azure_ml import AzureMl
from tests.azure_ml.workspace.connected import connect
from tests.azurite import Azurite
from tests.skin.conftest import FinishedRun, parse_folder, run
from tests.storage.stores import airflow_connections, blob_store, sas_token, with_key, with_sas

pytestmark = pytest.mark.slow

PROJECT_DAGS = Path(__file__).parents[2] / "dags"
EXAMPLES = sorted(each.stem for each in PROJECT_DAGS.glob("*.py") if "example" in each.read_text())

RunExample = Callable[..., FinishedRun]


everywhere = pytest.mark.parametrize("place", ["local", "azurite", "azure_ml"], indirect=True, scope="module")
"""For examples that the system tests do not run on Azure ML."""


@pytest.fixture(scope="module", params=["local", "azurite"])
def place(request: pytest.FixtureRequest) -> str:
    """Where data is and steps run."""
    return str(request.param)


@pytest.fixture(scope="module")
def stores(
    place: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """One workspace for all examples: embedded, with data in two storage accounts and a folder, or that of Azure ML.

    :returns: Values for the form of ``aml_11_storage``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow_home")))
        if place == "local":
            yield {}
            return
        if place == "azure_ml":
            service: AzureMl = request.getfixturevalue("started_azure_ml")
            for name, value in service.environment.items():
                patch.setenv(name, value)
            connect(patch)
            yield {}
            service.check()
            return
        azurite: Azurite = request.getfixturevalue("azurite")
        for container, account in (("raw", "first"), ("results", "second"), ("lake", "second")):
            azurite.create_container(container, account)
        datastores = {
            "workspaceblobstore": blob_store("raw", "wasb_raw"),
            "scratch": {"kind": "local", "root": str(tmp_path_factory.mktemp("scratch"))},
            "results": blob_store("results", "wasb_results"),
            "lake": {"kind": "azure_data_lake_gen2", "filesystem": "lake", "conn_id": "wasb_results"},
        }
        connections = {
            "wasb_raw": with_key(azurite, azurite.url),
            "wasb_results": with_sas(azurite, azurite.url, sas_token(azurite, "second"), "second"),
        }
        for name, value in airflow_connections(datastores, **connections).items():
            patch.setenv(name, value)
        yield {"intermediate": "scratch", "results": "results", "lake": "lake"}


@pytest.fixture(scope="module")
def compute_target(place: str) -> str:
    """Where the steps run."""
    return "cpu-cluster" if place == "azure_ml" else "local"


@pytest.fixture(scope="module")
def workspace(stores: dict[str, str]) -> Workspace:
    """The workspace the examples run in."""
    return Workspace()


@pytest.fixture(scope="module")
def examples(workspace: Workspace) -> Iterator[dict[str, DAG]]:
    """The example DAGs, parsed as Airflow does, with warnings as errors."""
    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    shutil.copytree(PROJECT_DAGS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bag = parse_folder(folder)
    assert bag.import_errors == {}
    assert bag.captured_warnings == {}
    yield bag.dags
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.fixture(scope="module")
def registered(examples: dict[str, DAG]) -> FinishedRun:
    """``aml_01_datasets`` has run."""
    return run(examples["aml_01_datasets"])


@pytest.fixture
def run_example(examples: dict[str, DAG], registered: FinishedRun, compute_target: str) -> RunExample:
    """Run an example to its end, with values of the trigger form."""

    def run_one(dag_id: str, **params: Any) -> FinishedRun:
        finished = run(examples[dag_id], {"compute_target": compute_target, **params})
        assert finished.state == "success", finished.task_states
        return finished

    return run_one


@pytest.mark.parametrize("dag_id", EXAMPLES)
def test_an_example_is_its_own_documentation(dag_id: str, examples: dict[str, DAG]) -> None:
    dag = examples[dag_id]

    assert "**What**" in dag.doc_md
    assert "example" in dag.tags
    assert dag.schedule is None
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description
        assert param.schema["type"]
        assert param.schema.keys() & {"minimum", "pattern", "enum"}


def test_datasets_are_registered_with_all_their_rows(registered: FinishedRun, workspace: Workspace) -> None:
    assert registered.xcom("register") == {"iris": 1, "flights": 1, "sample_images": 1}
    iris = Dataset.get_by_name(workspace, "iris").to_pandas_dataframe()
    assert list(iris.columns) == ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]
    assert list(iris.groupby("species").size()) == [50, 50, 50]
    assert len(Dataset.get_by_name(workspace, "flights").to_pandas_dataframe()) == 336_776
    assert Dataset.get_by_name(workspace, "sample_images").to_path() == ["/china.jpg", "/flower.jpg"]


def test_inputs_are_read_directly_from_a_mount_and_from_a_download(run_example: RunExample, tmp_path: Path) -> None:
    finished = run_example("aml_02_inputs", digits=1)

    means = {"sepal_length": 5.8, "sepal_width": 3.1, "petal_length": 3.8, "petal_width": 1.2}
    expected = {"rows": 150, **{f"mean_{name}": mean for name, mean in means.items()}}
    assert finished.xcom("describe_iris") == expected
    sizes = {name: {"width": [640], "height": [427]} for name in ("china", "flower")}
    assert finished.xcom("measure_images") == sizes
    (archive,) = finished.xcom("archive_images", "archive").download(tmp_path)
    assert zipfile.ZipFile(archive).namelist() == ["china.jpg", "flower.jpg"]


def test_the_parts_of_a_split_are_disjoint_and_make_up_the_sample(
    registered: FinishedRun, workspace: Workspace
) -> None:
    sample = Dataset.get_by_name(workspace, "flights").take_sample(0.1, seed=42)

    train, test = (part.to_pandas_dataframe() for part in sample.random_split(0.8, seed=42))

    key = ["time_hour", "carrier", "flight", "origin", "dest"]  # no two flights share it
    rows = [row for part in (train, test) for row in part[key].itertuples(index=False)]
    assert len(rows) == len(set(rows))
    assert set(rows) == set(sample.to_pandas_dataframe()[key].itertuples(index=False))
    assert len(train) / len(rows) == pytest.approx(0.8, abs=0.01)
    assert len(rows) / 336_776 == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize(("sample_share", "train_share", "seed"), [(0.9, 0.8, 42), (0.6, 0.5, 7)])
def test_a_step_gets_the_parts_that_the_trigger_form_asks_for(
    sample_share: float, train_share: float, seed: int, run_example: RunExample, workspace: Workspace
) -> None:
    result = run_example("aml_03_split", sample_share=sample_share, train_share=train_share, seed=seed).xcom("train")

    sample = Dataset.get_by_name(workspace, "iris").take_sample(sample_share, seed=seed)
    parts = [len(part.to_pandas_dataframe()) for part in sample.random_split(train_share, seed=seed)]
    assert [result["train_rows"], result["test_rows"]] == parts
    assert result["accuracy"] > 0.85


def test_without_a_seed_both_parts_of_a_run_share_the_drawn_one(run_example: RunExample, workspace: Workspace) -> None:
    result = run_example("aml_03_split", sample_share=1.0, seed=None).xcom("train")

    assert result["train_rows"] + result["test_rows"] == 150


def test_a_value_out_of_bounds_is_refused(examples: dict[str, DAG], registered: FinishedRun) -> None:
    with pytest.raises(ParamValidationError, match=r"1\.5 is greater than the maximum of 1\.0"):
        run(examples["aml_03_split"], {"sample_share": 1.5})


def test_steps_follow_their_data_and_two_branches_are_merged(
    run_example: RunExample, examples: dict[str, DAG], tmp_path: Path
) -> None:
    finished = run_example("aml_04_intermediate_data", worst=3)

    dag = examples["aml_04_intermediate_data"]
    assert {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks} == {
        "merge": ["by_airline", "by_airport"],
        "by_airline": ["clean"],
        "by_airport": ["clean"],
        "clean": [],
    }
    assert finished.xcom("clean") == {"rows_read": 336_776, "rows_kept": 327_346}
    clean = finished.xcom("clean", "clean_flights")
    assert clean.to_path() == [f"/{month:02}.parquet" for month in range(1, 13)]
    assert clean.path.startswith("examples/aml_04_intermediate_data.")
    assert clean.path.endswith("/clean_flights")
    report = finished.xcom("merge", "report").to_pandas_dataframe()
    assert list(report["value"]) == ["F9", "FL", "EV", "CAE", "TUL", "OKC"]
    assert report["minutes"].iloc[0] == pytest.approx(21.92)


def test_a_registered_output_is_read_in_the_version_that_is_asked_for(run_example: RunExample) -> None:
    first = run_example("aml_05_registered_output")
    second = run_example("aml_05_registered_output", month=7)
    third = run_example("aml_05_registered_output", month=12, version="2")

    published = [each.xcom("publish", "monthly_delays") for each in (first, second, third)]
    assert [(each.dataset, each.dataset_version) for each in published] == [("monthly_delays", n) for n in (1, 2, 3)]
    assert [each.xcom("use")["month"] for each in (first, second, third)] == [1, 7, 7]
    assert first.xcom("use") == {"month": 1, "days": 31, "worst_day": 16, "worst_delay_minutes": 34.25}


def test_taskflow_tasks_use_what_a_step_wrote(run_example: RunExample) -> None:
    finished = run_example("aml_06_taskflow", species="setosa")

    assert finished.xcom("list_files") == ["/long.csv", "/short.csv"]
    lines = finished.xcom("count_lines")
    assert sum(lines.values()) == 50 + 2  # each file has a header
    average = {"sepal_length": 5.01, "sepal_width": 3.43, "petal_length": 1.46, "petal_width": 0.25, "species": 0.0}
    assert finished.xcom("average") == average


def test_a_script_finds_its_packages_variables_and_parameters(run_example: RunExample, compute_target: str) -> None:
    finished = run_example("aml_07_run_configuration", size=64)

    sizes = {name: {"width": [64], "height": [43]} for name in ("china", "flower")}
    assert finished.xcom("thumbnails") == sizes
    assert finished.xcom("thumbnails", "thumbnails").to_path() == ["/china.jpg", "/flower.jpg"]
    assert finished.xcom("show_settings") == {
        "python": sys.executable,
        "UNIT": "pixel",
        "DAG_RUN": finished.run_id,
        "AML_PARAMETER_longest_side": "64",
        "AML_PARAMETER_quality": "90",
    }


@everywhere
def test_a_mapped_step_writes_an_output_for_each_value(run_example: RunExample) -> None:
    finished = run_example("aml_08_mapped_steps", late_minutes=15)

    assert finished.xcom("compare") == {"EWR": 0.263, "JFK": 0.237, "LGA": 0.231}


@everywhere
def test_a_command_selects_and_another_reads_all_it_wrote(run_example: RunExample) -> None:
    assert run_example("aml_09_command_step").xcom("count") == {"EWR": 46_087, "JFK": 4_534, "LGA": 8_044}
    assert run_example("aml_09_command_step", airline="B6").xcom("count") == {"EWR": 6_557, "JFK": 42_076, "LGA": 6_002}


@everywhere
def test_a_step_reads_parts_of_what_another_wrote_as_tables(run_example: RunExample) -> None:
    finished = run_example("aml_10_tables", rows=5_000)
    compare = finished.xcom("compare")

    assert finished.xcom("clean") == {"rows": 5_000}
    assert compare["first_rows"] + compare["second_rows"] <= 5_000
    assert abs(compare["first_rows"] - compare["second_rows"]) < 300
    assert compare["first_late"] == pytest.approx(compare["second_late"], abs=0.05)


def test_one_dag_writes_to_the_stores_that_the_trigger_form_names(
    run_example: RunExample, stores: dict[str, str]
) -> None:
    finished = run_example("aml_11_storage", **stores)

    assert finished.xcom("clean") == {"rows_read": 336_776, "rows_kept": 327_346}
    assert finished.xcom("delays") == {"worst_carrier": "F9", "worst_dest": "CAE"}
    by_airline, by_airport = (finished.xcom("delays", name) for name in ("by_airline", "by_airport"))
    assert by_airline.to_pandas_dataframe()["minutes"].iloc[0] == pytest.approx(21.92)
    assert len(by_airport.to_pandas_dataframe()) == 104
    written = [finished.xcom("clean", "clean_flights"), by_airline, by_airport]
    assert [each.datastore for each in written] == (list(stores.values()) or ["workspaceblobstore"] * 3)


def test_the_articles_pipeline_beats_every_simple_guess(run_example: RunExample, workspace: Workspace) -> None:
    finished = run_example("aml_article")

    metrics = finished.xcom("evaluate")
    model, as_left = metrics["mean_absolute_error"], metrics["mean_absolute_error_as_late_as_it_left"]
    assert 11 < model < metrics["mean_absolute_error_less_usual_gain"] < as_left
    assert as_left < metrics["mean_absolute_error_median_flight"] < 30
    prepared = finished.xcom("prepare")
    assert 0.09 < sum(prepared.values()) / 327_346 < 0.11
    assert prepared["train_rows"] / sum(prepared.values()) == pytest.approx(0.8, abs=0.01)
    assert finished.xcom("train")["rows"] == prepared["train_rows"]
    assert metrics["flights"] == prepared["test_rows"]
    reference = finished.xcom("prepare", "processed_data")
    assert (reference.dataset, reference.dataset_version) == ("processed_data", 1)
    processed = Dataset.get_by_name(workspace, "processed_data")
    assert processed.to_path() == ["/test.parquet", "/train.parquet"]
    assert finished.xcom("train", "model").to_path() == ["/model.joblib"]
    assert finished.xcom("summary").startswith(f"model: off by {model:.1f} min")


# By hand


def by_hand(folder: Path, *command: str | Path) -> str:
    """Run a script as its docstring says; its output."""
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


@pytest.fixture
def iris_csv(registered: FinishedRun, workspace: Workspace, tmp_path: Path) -> Path:
    """The flowers, in a file."""
    return Path(Dataset.File.from_files((workspace.get_default_datastore(), "examples/iris.csv")).download(tmp_path)[0])


def test_scripts_run_by_hand_with_plain_python(iris_csv: Path, tmp_path: Path) -> None:
    scripts = PROJECT_DAGS / "scripts"

    described = by_hand(tmp_path, scripts / "inputs" / "describe.py", "--iris", iris_csv)
    prepare = scripts / "taskflow" / "prepare.py"
    by_hand(tmp_path, prepare, "--iris", iris_csv, "--species", "setosa", "--processed", "out")

    assert "metric rows = 150" in described
    long, short = (
        list(csv.DictReader(StringIO((tmp_path / "out" / name).read_text()))) for name in ("long.csv", "short.csv")
    )
    assert len(long) + len(short) == 50


def test_a_v1_script_runs_by_hand_unchanged(iris_csv: Path, tmp_path: Path) -> None:
    header, *rows = iris_csv.read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text(header + "".join(rows[::2]))
    (tmp_path / "test.csv").write_text(header + "".join(rows[1::2]))

    script = PROJECT_DAGS / "scripts" / "split" / "train.py"
    said = by_hand(tmp_path, script, "--train", "train.csv", "--test", "test.csv")

    assert "metric train_rows = 75" in said
    assert "metric accuracy = 0.9" in said
