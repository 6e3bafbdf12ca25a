"""Every test of the catalog runs on SQLite and on PostgreSQL; ``-k sqlite`` runs the quick half."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from airflow_aml_data.core.catalog import Catalog, CommittedOutput, NewOutput
from airflow_aml_data.core.identity import StepRun
from tests.catalog import workers
from tests.postgres import PostgresServer, make_postgres_url, postgres_server

__all__ = ["make_postgres_url", "postgres_server"]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make_catalog_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """A factory of URLs of empty databases of one kind."""
    if dialect == "postgresql":
        return request.getfixturevalue("make_postgres_url")
    numbers = iter(range(100))
    return lambda: f"sqlite:///{tmp_path}/new folder/catalog{next(numbers)}.db"


@pytest.fixture
def catalog_url(make_catalog_url: Callable[[], str]) -> str:
    """The URL of an empty database: nothing was migrated yet."""
    return make_catalog_url()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("migrated") / "catalog.db"
    Catalog(f"sqlite:///{file}").check()
    return file


@pytest.fixture(scope="session")
def migrated_database(postgres_server: PostgresServer) -> str:
    Catalog(postgres_server.new_database("migrated")).check()
    return "migrated"


@pytest.fixture
def fresh_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that is migrated and empty: a copy, which takes less time than migrating."""
    if dialect == "postgresql":
        server = request.getfixturevalue("postgres_server")
        return server.new_database(template=request.getfixturevalue("migrated_database"))
    shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "fresh.db")
    return f"sqlite:///{tmp_path}/fresh.db"


@pytest.fixture
def fresh_catalog(fresh_url: str, clock: Clock) -> Catalog:
    """A catalog with nothing in it, on a clock that stands still."""
    return Catalog(fresh_url, now=clock)


@pytest.fixture(scope="session")
def eight_processes() -> Iterator[Callable[..., list[Any]]]:
    """Calls a function of :mod:`tests.catalog.workers` in eight processes at once; returns eight answers."""
    context = get_context("forkserver")  # each process is forked from one that has done the imports
    context.set_forkserver_preload(["tests.catalog.workers"])
    barrier = context.Barrier(8)
    with ProcessPoolExecutor(8, context, initializer=workers.meet_at, initargs=(barrier,)) as pool:

        def call(function: Callable[..., Any], *arguments: Any) -> list[Any]:
            return list(pool.map(function, range(8), *([argument] * 8 for argument in arguments)))

        yield call


def make_run(task_id: str = "prepare", **columns: Any) -> StepRun:
    return StepRun(**{"dag_id": "sales", "run_id": "manual__1", "task_id": task_id, "unique": "u1"} | columns)


def make_output(name: str = "prepared", path: str = "data/prepared", datastore: str = "lake") -> NewOutput:
    return NewOutput(name=name, datastore=datastore, path=path, mode="upload")


def make_committed(name: str = "prepared") -> CommittedOutput:
    return CommittedOutput(
        name=name,
        files=3,
        size_bytes=5_000_000_000,
        manifest_path=f".aml_data/{name}.json",
        manifest_digest="xxh3:0f",
        changed_at=datetime(2026, 1, 31, 11, 59, 59, 123456, tzinfo=UTC),
    )


def write_output(catalog: Catalog, run: StepRun, output: NewOutput | None = None) -> str:
    """Begin and commit one output; return its id."""
    output = output or make_output()
    catalog.begin_outputs(run, [output], lease_seconds=60)
    catalog.commit_outputs(run, [make_committed(output.name)])
    return f"{run.id}/{output.name}"
