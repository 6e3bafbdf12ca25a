"""One real Airflow for all system tests: it takes 20 seconds to start."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from dev.local_airflow import LocalAirflow

PROJECT_DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture(scope="session")
def dags_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the running Airflow watches for DAG files."""
    return tmp_path_factory.mktemp("dags")


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory, dags_folder: Path) -> Iterator[LocalAirflow]:
    """A running Airflow with the project's DAGs and those of :func:`make_dag_file`."""
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow"),
        dags_folder=dags_folder,
        more_dags_folders=[PROJECT_DAGS] if PROJECT_DAGS.is_dir() else [],
    ) as running:
        yield running


@pytest.fixture(scope="session")
def make_dag_file(dags_folder: Path) -> Callable[[str, str], Path]:
    """Write a DAG file, given its name without ``.py`` and its text."""

    def make(name: str, text: str) -> Path:
        file = dags_folder / f"{name}.py"
        partial = file.with_suffix(".partial")
        partial.write_text(dedent(text))
        return partial.rename(file)  # at once: the DAG processor may be looking

    return make


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Come back when something is so; fail when it is not for too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
