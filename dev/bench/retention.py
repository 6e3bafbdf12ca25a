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
from dev.bench.blob_server import Server, Stored, running_server
from dev.bench.measured import Measured, measure
from dev.bench.report import Report, Row
from dev.bench.retention_contenders import STORE, VARIABLE
from dev.bench.retention_data import FILE_BYTES, stored_outputs
from dev.bench.transfer_cases import Store, programs, workplace
from dev.bench.transfer_contenders import AZCOPY_OPTIONS, azcopy_environment, wasb_environment
from dev.bench.transfers import KEY
from tests.postgres import PostgresServer

OUTPUTS, LISTED, SWEPT = 1_000_000, 1_000_000, 100_000
ETAG = "0x8DE0000000000001"
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
    with workplace() as folder:
        _report_listing(report, folder)
    with workplace() as folder:
        _report_sweep(report, folder)


def _report_listing(report: Report, folder: Path) -> None:
    """Ours lists everything and compares it with the catalog; WasbHook lists a tenth of that."""
    stored = Stored(["store"], LISTED // 1000, 99, ETAG)
    with running_server(stored=stored) as server:
        theirs, printed = _measure("wasb_list", _told(server, folder, stored, "store"))
        few = json.loads(printed)["files"]
    stored = stored._replace(outputs=LISTED // 100)
    with running_server(stored=stored) as server:
        ours, printed = _measure("reconcile", _told(server, folder, stored, "store"))
    if json.loads(printed) != {"files": LISTED, "unknown": 0, "missing": 0}:
        raise RuntimeError(f"{LISTED} files are stored, and the catalog knows all of them: {printed}")
    rates = {"ours": LISTED / ours.seconds, "theirs": few / theirs.seconds}
    name = f"{LISTED:,} blobs compared with the catalog (theirs: WasbHook lists {few:,})"
    report.add(Row(name=name, **rates, unit="blobs/s", better="higher", target=30))
    memory = Row(name="  its peak memory", ours=ours.memory_mb, theirs=theirs.memory_mb, unit="MB", most=MEMORY_MB)
    report.add(memory)


def _report_sweep(report: Report, folder: Path) -> None:
    """Ours judges each output again, deletes by etag, and writes the history; theirs delete what a prefix has."""
    stored = Stored(["ours", "wasb_hook", "azcopy"], SWEPT // 100, 99, ETAG)
    tools, rates = programs(), {}
    with running_server(stored=stored) as server:
        told = _told(server, folder, stored, "ours")
        plan = json.loads(_measure("plan", told | {"maximum_share": 1, "approve": True})[1])
        ours, printed = _measure("sweep", told | {"plan": plan["plan"]})
        if json.loads(printed)["files"] != SWEPT:
            raise RuntimeError(f"{SWEPT} files were to be deleted: {printed}")
        data = SWEPT // 100 * 99
        theirs, _ = _measure("wasb_delete", _told(server, folder, stored, "wasb_hook"))
        rates["WasbHook"] = data / theirs.seconds, 10
        address = f"{server.url}/azcopy/dataset?{Store(url=server.url, key=KEY).sas}"
        command = [tools.azcopy.absolute(), "remove", address, "--from-to=BlobTrash", *AZCOPY_OPTIONS]
        took, _ = measure(command, os.environ | azcopy_environment(tools.azcopy.absolute(), str(folder)))
        rates["azcopy remove"] = data / took.seconds, 3
        left = {each: len(Store(url=server.url, key=KEY).sizes(each, "dataset")) for each in stored.containers}
    if any(left.values()):
        raise RuntimeError(f"Files are left: {left}")
    for name, (rate, target) in rates.items():
        title = f"{SWEPT:,} blobs swept (theirs: {name})"
        report.add(
            Row(name=title, ours=SWEPT / ours.seconds, theirs=rate, unit="blobs/s", better="higher", target=target)
        )
    report.add(Row(name="  its peak memory", ours=ours.memory_mb, theirs=theirs.memory_mb, unit="MB"))


def _told(server: Server, folder: Path, stored: Stored, container: str) -> dict[str, Any]:
    """A workspace with the container as its datastore, and a new catalog of the outputs in it, 40 days old."""
    database = folder / f"{container}.db"
    database.unlink(missing_ok=True)
    url = f"sqlite:///{database}"
    catalog = Catalog(url)
    catalog.check()
    catalog.close()
    then = _text(datetime.now(UTC) - timedelta(days=40))
    rows = folder / f"{container}.csv"
    with rows.open("w", newline="") as file:
        csv.writer(file).writerows(
            (
                *(
                    each.id,
                    each.run.dag_id,
                    each.run.run_id,
                    each.run.task_id,
                    -1,
                    1,
                    each.run.id,
                    "out",
                    STORE,
                    each.path,
                ),
                *("upload", "committed", len(each.files), len(each.files) * FILE_BYTES, each.manifest_path),
                *(each.manifest_digest, then, then, None, False, None),
            )
            for each in stored_outputs(stored.outputs, stored.files, stored.etag)
        )
    _fill_sqlite(url, rows, has_datasets=False)
    store = {"kind": "azure_blob", "container_name": container, "conn_id": "bench", "verify_uploads": False}
    connection = Store(url=server.url, key=KEY).connection_string
    return {"store": store, "catalog": url, "home": str(folder), "connection_string": connection}


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


def _fill_sqlite(url: str, rows: Path, has_datasets: bool = True) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection, rows.open(newline="") as file:
        marks = ", ".join("?" * len(_COLUMNS))
        cells = ([cell or None for cell in row] for row in csv.reader(file))
        booleans = ([*row[:19], 0, row[20]] for row in cells)
        connection.execute("PRAGMA synchronous=OFF")
        connection.executemany(f"INSERT INTO aml_outputs ({', '.join(_COLUMNS)}) VALUES ({marks})", booleans)
        if has_datasets:
            _register(connection, rows)
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


def _register(connection: sqlite3.Connection, rows: Path) -> None:
    versions = list(registered(rows))
    names = [(each[0], 1, each[7]) for each in versions]
    connection.executemany("INSERT INTO aml_datasets (name, latest, created_at) VALUES (?, ?, ?)", names)
    marks = ", ".join("?" * 8)
    connection.executemany(f"INSERT INTO aml_dataset_versions ({_VERSION_COLUMNS}) VALUES ({marks})", versions)


def _measure(what: str, told: Mapping[str, Any]) -> tuple[Measured, str]:
    known = wasb_environment(told.get("connection_string", ""), told["home"])
    environment = os.environ | known | {VARIABLE: json.dumps(told)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as anywhere
    took, printed = measure([sys.executable, "-m", "dev.bench.retention_contenders", what], environment)
    first, *_, last = printed.splitlines()
    return took.without(**json.loads(first)), last
