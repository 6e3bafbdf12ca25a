"""Steps as Azure ML jobs: what their scripts find, what is published, and what is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_aml_data import OutputFileDatasetConfig, Workspace
from tests.azure_ml import AzureMl
from tests.azure_ml.steps import JobSteps
from tests.core.steps import READ, WRITE

pytestmark = pytest.mark.slow


@pytest.fixture
def steps(connected: Workspace, tmp_path: Path) -> Iterator[JobSteps]:
    return JobSteps(connected, tmp_path)


def test_what_a_job_writes_is_what_the_next_step_reads_here_and_there(steps: JobSteps, azure_ml: AzureMl) -> None:
    written = steps.run_job(WRITE, arguments=[OutputFileDatasetConfig("out").as_upload(), "a.txt", "b/c.txt"])

    (reference,) = written.outputs
    assert reference.to_path() == ["/a.txt", "/b/c.txt"]
    steps.run(READ, arguments=[reference.as_dataset().as_named_input("it").as_download()], task_id="here")
    there = steps.run_job(READ, arguments=[reference.as_dataset().as_named_input("it").as_mount()], task_id="there")
    assert sorted(steps.lines) == ["a.txt new a.txt", "b/c.txt new b/c.txt"]
