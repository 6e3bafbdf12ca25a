"""What the bench of tables runs, each in a process of its own: ``table_contenders.py NAME WORK SOURCE FOLDER``.

Prints the seconds of the work, imports not counted, and the most memory the process had. Needs only the packages of the
contender, for theirs have an environment of their own.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAMPLE, SPLIT, SEED = 0.5, 0.8, 42
"""Every contender takes a sample and splits it into two files, ``train`` and ``test``."""


def ours(work: str, source: Path, folder: Path) -> Callable[[], Any]:
    """A DataFrame as a script asks for it; both parts of a split as a step does that gets them as inputs.

    Then the time is that of the whole step, from its plan to its end, without Airflow, and with a script that does nothing
    but take the files. A step before it has made the catalog, and imported everything.
    """
    import os

    from airflow_aml_data import Dataset, Datastore, Workspace
    from airflow_aml_data.core.compute.local import Command
    from airflow_aml_data.core.identity import StepRun
    from airflow_aml_data.core.plan import StepDeclaration
    from airflow_aml_data.core.protocol import RUN_FILE_VARIABLE, RunFile
    from airflow_aml_data.core.step import run_step
    from airflow_aml_data.core.tabular import write_parts  # noqa: F401  imported, as everything else, before the clock starts

    if work == "read_csv":
        import pandas  # noqa: F401  as theirs does

    stores = {"data": {"kind": "local", "root": str(source.parent)}}
    config = {
        "datastores": stores,
        "default_datastore": "data",
        "catalog_connection_string": f"sqlite:///{folder / 'catalog.db'}",
    }
    run = StepRun(dag_id="bench", run_id="bench", task_id="bench")
    run_file = RunFile(
        id=run.id,
        dag_id=run.dag_id,
        run_id=run.run_id,
        task_id=run.task_id,
        map_index=-1,
        try_number=1,
        conn_id="azureml_default",
        workspace=config,
    )
    run_file.write(folder / "run.json")
    os.environ[RUN_FILE_VARIABLE] = str(folder / "run.json")

    class Script:
        def run(self, command: Command, on_line: Callable[[str], None]) -> int:
            for name in ("train", "test"):
                if place := command.environment.get(f"AZURE_ML_INPUT_{name}"):
                    [part] = Path(place).iterdir()
                    part.rename(folder / name)
            return 0

    def step(*inputs: Any) -> None:
        declared = StepDeclaration(run=run, command=["script"], inputs=inputs)
        run_step(Workspace().connect(), declared, Script(), on_line=print, scratch_root=folder / "scratch")

    def act() -> Any:
        path = (Datastore(Workspace(), "data"), source.name)
        if work == "read_csv":
            return Dataset.Tabular.from_delimited_files(path).to_pandas_dataframe()
        make = Dataset.Tabular.from_delimited_files if work == "split_csv" else Dataset.Tabular.from_parquet_files
        parts = make(path).take_sample(SAMPLE, seed=SEED).random_split(SPLIT, seed=SEED)
        inputs = [
            (part.to_csv_files() if work == "split_csv" else part.to_parquet_files()).as_named_input(name).as_download()
            for name, part in zip(("train", "test"), parts, strict=True)
        ]
        return step(*inputs)

    step()
    return act


def pandas(work: str, source: Path, folder: Path) -> Callable[[], Any]:
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    def act() -> Any:
        if work == "read_csv":
            return pd.read_csv(source)
        whole = pd.read_csv(source) if work == "split_csv" else pd.read_parquet(source)
        sample = whole.sample(frac=SAMPLE, random_state=SEED)
        train = sample.sample(frac=SPLIT, random_state=SEED)
        for name, part in (("train", train), ("test", sample.drop(train.index))):
            if work == "split_csv":
                part.to_csv(folder / name, index=False)
            else:
                part.to_parquet(folder / name, index=False)
        return None

    return act


pandas_3_0 = pandas
"""The same in the environment of theirs, which has that version."""


def polars(work: str, source: Path, folder: Path) -> Callable[[], Any]:
    import polars as pl

    def act() -> Any:
        rows = pl.scan_csv(source) if work == "split_csv" else pl.scan_parquet(source)
        number = pl.int_range(pl.len(), dtype=pl.UInt64)
        sample = rows.with_columns(_sampled=number.hash(SEED) / 2.0**64, _split=number.hash(SEED + 1) / 2.0**64)
        sample = sample.filter(pl.col("_sampled") < SAMPLE)
        sinks = []
        for name, kept in (("train", pl.col("_split") < SPLIT), ("test", pl.col("_split") >= SPLIT)):
            part = sample.filter(kept).drop("_sampled", "_split")
            sink = part.sink_csv if work == "split_csv" else part.sink_parquet
            sinks.append(sink(folder / name, lazy=True))
        return pl.collect_all(sinks, engine="streaming")

    return act


def duckdb(work: str, source: Path, folder: Path) -> Callable[[], Any]:
    import duckdb

    def act() -> Any:
        connection = duckdb.connect()
        read = f"read_csv('{source}')" if work == "split_csv" else f"read_parquet('{source}')"
        written = "FORMAT csv, HEADER" if work == "split_csv" else "FORMAT parquet"
        connection.execute(f"SELECT setseed(0.{SEED})")
        connection.execute(f"CREATE TEMP TABLE sample AS SELECT *, random() AS u FROM {read} WHERE random() < {SAMPLE}")
        for name, kept in (("train", f"u < {SPLIT}"), ("test", f"u >= {SPLIT}")):
            rows = f"SELECT * EXCLUDE u FROM sample WHERE {kept}"
            connection.execute(f"COPY ({rows}) TO '{folder / name}' ({written})")

    return act


def mltable(work: str, source: Path, folder: Path) -> Callable[[], Any]:
    import mltable as ml

    def act() -> Any:
        make = ml.from_delimited_files if work == "split_csv" else ml.from_parquet_files
        table = make(paths=[{"file": str(source)}]).take_random_sample(probability=SAMPLE, seed=SEED)
        for name, part in zip(("train", "test"), table.random_split(percent=SPLIT, seed=SEED), strict=True):
            frame = part.to_pandas_dataframe()
            if work == "split_csv":
                frame.to_csv(folder / name, index=False)
            else:
                frame.to_parquet(folder / name, index=False)

    return act


def pyarrow(work: str, source: Path, folder: Path) -> Callable[[], Any]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    def act() -> Any:
        random = np.random.default_rng(SEED)
        is_csv = work == "split_csv"
        batches = pc.open_csv(source) if is_csv else pq.ParquetFile(source).iter_batches()
        schema = batches.schema if is_csv else pq.read_schema(source)
        open_writer = pc.CSVWriter if is_csv else pq.ParquetWriter
        with open_writer(folder / "train", schema) as train, open_writer(folder / "test", schema) as test:
            for batch in batches:
                sample = random.random(batch.num_rows) < SAMPLE
                first = random.random(batch.num_rows) < SPLIT
                train.write_batch(batch.filter(pa.array(sample & first)))
                test.write_batch(batch.filter(pa.array(sample & ~first)))

    return act


def most_memory_mb() -> float:
    """Give the most this process had; getrusage would count what its parent had when it started it."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    name, work, source, folder = sys.argv[1:]
    act = globals()[name](work, Path(source), Path(folder))
    start = time.perf_counter()
    act()
    print(json.dumps({"seconds": time.perf_counter() - start, "memory_mb": most_memory_mb()}))


if __name__ == "__main__":
    main()
