"""Retention at the size of a busy year: planning over 1,000,000 outputs, comparing with 1,000,000 blobs, sweeping 100,000.

Of the outputs, 60 % are young, 20 % old and read of late, 10 % pinned, 9 % registered, and 1 % is due: 10,000 outputs of one file on a
local folder, whose manifests are read and whose files are looked at.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2

from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.manifest import Manifest, ManifestEntry, manifest_path
from airflow_aml_data.core.storage.local import LocalStorage
from dev.bench.measured import Measured, measure
from dev.bench.report import Report, Row
from dev.bench.retention_contenders import STORE, VARIABLE
from dev.bench.transfer_cases import workplace
from tests.postgres import PostgresServer

OUTPUTS = 1_000_000
PLAN_SECONDS, MEMORY_MB = 10, 200

_COLUMNS = (
    *(
        "id",
        "dag_id",
        "run_id",
        "task_id",
        "map_index",
        "try_number",
        "step_run_id",
        "name",
        "datastore",
        "path",
        "mode",
    ),
    *("state", "files", "size_bytes", "manifest_path", "manifest_digest", "created_at", "changed_at", "used_at"),
    *("used_elsewhere", "pin"),
)


def run(report: Report) -> None:
    with workplace() as folder:
        root = folder / "store"
        rows = folder / "outputs.csv"
        with rows.open("w", newline="") as file:
            csv.writer(file).writerows(outputs(root, datetime.now(UTC)))
        _report_plans(report, folder, root, rows)


def outputs(root: Path, now: datetime) -> Iterator[tuple[Any, ...]]:
    """Rows of the catalog; the files of those that are due are written."""
    storage = LocalStorage(STORE, root)
    for number in range(OUTPUTS):
        kind = number % 100
        run = StepRun(dag_id=f"dag{number % 50}", run_id=f"run{number // 10}", task_id="step", unique=str(number))
        changed = now - timedelta(days=number % 29 if kind < 60 else 31 + number % 300)
        path, where, digest, size = f"dataset/{run.id}/out", manifest_path(run.id, "out"), "", 1000
        if kind == 99:
            digest = _write(storage, path, where)
        used = now - timedelta(days=number % 28) if 60 <= kind < 80 else None
        yield (
            *(f"{run.id}/out", run.dag_id, run.run_id, run.task_id, -1, 1, run.id, "out", STORE, path, "upload"),
            *("committed", 1, size, where, digest, _text(changed), _text(changed), _text(used), False),
            "ann" if 80 <= kind < 90 else None,
        )


def _write(storage: LocalStorage, path: str, where: str) -> str:
    storage.write_bytes(f"{path}/a.bin", b"x" * 1000)
    (stored,) = storage.list_files(path)
    manifest = Manifest.of([ManifestEntry("a.bin", 1000, "xxh3:0", stored.etag)])
    storage.write_bytes(where, manifest.to_bytes())
    return manifest.digest


def _text(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}" if moment else None


def registered(rows: Path) -> Iterator[tuple[Any, ...]]:
    """Dataset versions that read the outputs that are registered."""
    with rows.open(newline="") as file:
        for number, row in enumerate(csv.reader(file)):
            if 90 <= number % 100 < 99:
                definition = json.dumps({"sources": [{"output_id": row[0], "datastore": STORE, "path": row[9]}]})
                yield f"data{number}", 1, f"id{number}", definition, "", "{}", row[0], row[16]


def _report_plans(report: Report, folder: Path, root: Path, rows: Path) -> None:
    server = PostgresServer()
    server.start()
    try:
        databases = {"SQLite": f"sqlite:///{folder / 'catalog.db'}", "PostgreSQL": server.new_database()}
        for name, url in databases.items():
            catalog = Catalog(url)
            catalog.check()
            catalog.close()
            (_fill_sqlite if name == "SQLite" else _fill_postgres)(url, rows)
            told = {"store": {"kind": "local", "root": str(root)}, "catalog": url, "home": str(folder)}
            (least, _), (took, printed) = _measure("read", told), _measure("plan", told)
            if (found := json.loads(printed)["outputs"]) != OUTPUTS // 100:
                raise RuntimeError(f"{found} outputs are planned, {OUTPUTS // 100} are due: {printed}")
            print(f"  {name}: {took.seconds:.2f} s, {took.memory_mb:.0f} MB", flush=True)
            title = f"plan over {OUTPUTS:,} outputs, {name} (theirs: reading them)"
            report.add(Row(name=title, ours=took.seconds, theirs=least.seconds, most=PLAN_SECONDS))
            memory = Row(
                name="  its peak memory", ours=took.memory_mb, theirs=least.memory_mb, unit="MB", most=MEMORY_MB
            )
            report.add(memory)
    finally:
        server.stop()


def _fill_sqlite(url: str, rows: Path) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection, rows.open(newline="") as file:
        marks = ", ".join("?" * len(_COLUMNS))
        cells = ([cell or None for cell in row] for row in csv.reader(file))
        booleans = ([*row[:19], 0, row[20]] for row in cells)
        connection.execute("PRAGMA synchronous=OFF")
        connection.executemany(f"INSERT INTO aml_outputs ({', '.join(_COLUMNS)}) VALUES ({marks})", booleans)
        _register(connection, rows, "?")
        connection.execute("ANALYZE")


def _fill_postgres(url: str, rows: Path) -> None:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor, rows.open() as file:
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.copy_expert(f"COPY aml_outputs ({', '.join(_COLUMNS)}) FROM STDIN WITH CSV", file)
        names = "name, latest, created_at"
        versions = list(registered(rows))
        for table, columns, records in (
            ("aml_datasets", names, [(each[0], 1, each[7]) for each in versions]),
            ("aml_dataset_versions", _VERSION_COLUMNS, versions),
        ):
            buffer = io.StringIO()
            csv.writer(buffer).writerows(records)
            buffer.seek(0)
            cursor.copy_expert(
                f"COPY {table} ({columns}) FROM STDIN WITH (FORMAT csv, FORCE_NOT_NULL ({columns}))", buffer
            )
        cursor.execute("ANALYZE")
    connection.close()


_VERSION_COLUMNS = "name, version, dataset_id, definition, description, tags, output_id, created_at"


def _register(connection: sqlite3.Connection, rows: Path, mark: str) -> None:
    versions = list(registered(rows))
    names = [(each[0], 1, each[7]) for each in versions]
    connection.executemany("INSERT INTO aml_datasets (name, latest, created_at) VALUES (?, ?, ?)", names)
    marks = ", ".join([mark] * 8)
    connection.executemany(f"INSERT INTO aml_dataset_versions ({_VERSION_COLUMNS}) VALUES ({marks})", versions)


def _measure(what: str, told: Mapping[str, Any]) -> tuple[Measured, str]:
    environment = os.environ | {VARIABLE: json.dumps(told), "AIRFLOW_HOME": f"{told['home']}/airflow"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as anywhere
    took, printed = measure([sys.executable, "-m", "dev.bench.retention_contenders", what], environment)
    first, *_, last = printed.splitlines()
    return took.without(**json.loads(first)), last
