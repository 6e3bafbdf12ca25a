"""G42 to G50: reuse (semantics, section 13), which is not offered yet: every step runs, and hands on what it wrote itself.

The cases where v1 reuses an earlier run say so in their names; those where v1 runs again hold already.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, Workspace
from tests.core.steps import WRITE, Steps
from tests.skin.conftest import run

STORE = Datastore(Workspace(), "workspaceblobstore")
FILES = Dataset.File.from_files((STORE, "raw"))
RAW = FILES.as_named_input("raw").as_mount()
OUT = OutputFileDatasetConfig("out")


@dataclass
class Train:
    """A step that is run again and again, each time in another DAG run."""

    steps: Steps
    sources: Path
    paths: list[str] = field(default_factory=list)

    def __call__(self, **different: Any) -> bool:
        """Run it, declared with these differences; whether its script ran and wrote to a place of its own."""
        declared = {"arguments": [OUT], "inputs": [RAW], "task_id": "train", "source_directory": self.sources}
        said = len(self.steps.lines)
        made = self.steps.run("", run_id=f"r{len(self.paths)}", **{**declared, **different}).outputs[0]
        wrote_anew = made.path not in self.paths
        self.paths.append(made.path)
        return wrote_anew and self.steps.lines[said:] == ["trained"]


@pytest.fixture
def train(steps, put) -> Train:
    """The step, which has run once."""
    put({"raw/a": "a"})
    sources = steps.folder / "code"
    sources.mkdir()
    (sources / "script.py").write_text(f"print('trained')\n{dedent(WRITE)}")
    (sources / "helper.py").write_text("a = 1")
    made = Train(steps, sources)
    assert made()
    return made


def test_g42_an_identical_step_runs_again_because_reuse_is_not_offered_yet(train):
    assert train()


@pytest.mark.slow  # two runs of a DAG
def test_g42_g48_whatever_allow_reuse_says_every_step_runs_in_every_dag_run_because_reuse_is_not_offered_yet(
    parse_dag, steps, airflow_database
):
    bag = parse_dag(
        "step('reusable', arguments=[a.as_upload()], allow_reuse=True, version='1')",
        "step('never', arguments=[b.as_upload()], allow_reuse=False)",
        script=dedent(WRITE),
    )
    assert not bag.import_errors

    runs = [run(bag.dags["golden"]) for _ in range(2)]

    assert [each.state for each in runs] == ["success", "success"]
    for task_id, output in (("reusable", "a"), ("never", "b")):
        first, second = (each.xcom(task_id, output) for each in runs)
        assert first.path != second.path
        assert first.to_path() == second.to_path() == ["/a.txt"]


def test_g43_a_changed_byte_of_a_source_file_runs_again(train):
    (train.sources / "helper.py").write_text("a = 2")

    assert train()


def test_g43_touched_and_moved_sources_run_again_too_because_reuse_is_not_offered_yet(train):
    (train.sources / "empty").mkdir()
    os.utime(train.sources / "helper.py", (1, 1))
    (train.sources / "helper.py").chmod(0o600)
    train.sources = train.sources.rename(train.sources.with_name("moved"))

    assert train()


def test_g44_a_changed_ignored_file_runs_again_too_because_reuse_is_not_offered_yet(train):
    (train.sources / ".amlignore").write_text("helper.py")
    assert train()
    (train.sources / "helper.py").write_text("a = 2")

    assert train()


@pytest.mark.slow
def test_g45_a_step_that_is_declared_otherwise_runs_again(train):
    for different in (
        {"arguments": [OUT, "a.txt"]},
        {"parameters": {"lr": 0.1}},
        {"task_id": "other"},
        {"inputs": [RAW.as_download()]},
        {"inputs": [FILES.as_named_input("other").as_mount()]},
        {"arguments": [OutputFileDatasetConfig("other")]},
        {"arguments": [OUT.as_upload()]},
    ):
        assert train(**different), different


def test_g46_another_output_path_overwrite_flag_or_name_runs_again_because_reuse_is_not_offered_yet(train):
    upload = OUT.as_upload()
    elsewhere = OutputFileDatasetConfig("out", destination=(STORE, "elsewhere/{run-id}"))
    for output in (elsewhere, upload, OUT.as_upload(overwrite=True), upload.register_on_complete("n")):
        assert train(arguments=[output]), output


def test_g47_another_definition_of_an_input_runs_again(train):
    assert train(inputs=[Dataset.File.from_files((STORE, "raw/*")).as_named_input("raw").as_mount()])


def test_g47_other_bytes_of_an_input_run_again_too_because_reuse_is_not_offered_yet(train, put):
    put({"raw/a": "b"})

    assert train()


def test_g49_every_dag_run_is_as_with_regenerate_outputs_because_reuse_is_not_offered_yet(train):
    assert [train(), train()] == [True, True]


def test_g50_below_a_step_that_ran_again_the_reader_runs_on_the_new_output(steps):
    for run_id, name in (("r1", "old.txt"), ("r2", "new.txt")):
        made = steps.write(name, task_id="step1", run_id=run_id)
        steps.run("import os, sys; print(*os.listdir(sys.argv[1]))", arguments=[made], task_id="step2", run_id=run_id)

    assert steps.lines == ["old.txt", "new.txt"]
