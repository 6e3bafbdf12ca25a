"""Sample and split of 5,000,000 rows written as two files, and the same file as a DataFrame.

Each contender runs in a process of its own, which tells the seconds of its work and its most memory. Contenders take turns, so
that a busy machine is busy for all. Ours goes the way of users: the parts are inputs of a step, whose time is that of the
whole step, and the DataFrame is what its script asks for. mltable wants other versions of packages than Airflow does, so
theirs have an environment of their own under ``build``; pandas and pyarrow are those of ours.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from dev.bench.report import Report, Row
from dev.bench.table_contenders import SAMPLE, SPLIT

ROWS = 5_000_000
RUNS = 3
ENVIRONMENT = Path("build") / "bench_tables"
THEIRS = ("duckdb==2.0.1", "mltable==1.7.0", "pandas==3.0.0", "polars==2.1.0", "pyarrow==25.0.1", "setuptools==80.9.0")
CONTENDERS = ("pandas", "polars", "duckdb", "mltable", "pyarrow")
WORKS = {"split_csv": CONTENDERS, "split_parquet": CONTENDERS, "read_csv": ("pandas", "pandas_3_0")}
TARGETS = {
    ("split_csv", "polars"): 1.5,
    ("split_csv", "pandas"): 10,
    ("split_csv", "mltable"): 10,
    ("split_parquet", "polars"): 1,
    ("read_csv", "pandas"): 2,
    ("read_csv", "pandas_3_0"): 2,
}
NAMES = {
    "split_csv": "sample and split a CSV of 300 MB",
    "split_parquet": "sample and split it as Parquet",
    "read_csv": "the CSV as a DataFrame",
}


class Measured(NamedTuple):
    seconds: float
    memory_mb: float


def run(report: Report) -> None:
    python = _environment()
    with TemporaryDirectory() as name:
        sources = _write_sources(Path(name))
        for work, contenders in WORKS.items():
            found = _measure(python, work, sources[work.partition("_")[2]], ("ours", *contenders))
            _report(report, work, found)


def _report(report: Report, work: str, found: dict[str, Measured]) -> None:
    ours = found.pop("ours")
    for contender, theirs in found.items():
        name, target = f"{NAMES[work]} (theirs: {contender})", TARGETS.get((work, contender))
        report.add(Row(name=name, ours=ours.seconds, theirs=theirs.seconds, target=target))
        report.add(
            Row(
                name=f"  its peak memory (theirs: {contender})",
                ours=ours.memory_mb,
                theirs=theirs.memory_mb,
                unit="MB",
                target=2 if (work, contender) == ("split_parquet", "polars") else None,
                most=200 if (work, contender) == ("split_csv", "polars") else None,
            )
        )


def _environment() -> Path:
    """Make the environment of theirs unless it is there; give its Python."""
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / ".ready"
    wanted = "\n".join(THEIRS)
    if not ready.exists() or ready.read_text() != wanted:
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *THEIRS], check=True)
        ready.write_text(wanted)
    return python


def _write_sources(folder: Path) -> dict[str, Path]:
    """Write the same table as CSV and as Parquet."""
    random = np.random.default_rng(7)
    words = np.array(["setosa", "versicolor", "virginica", "unknown", "a longer name here", "x"])
    start = np.datetime64("2024-01-01T00:00:00")
    table = pa.table(
        {
            "id": np.arange(ROWS),
            "time": start + random.integers(0, 3 * 10**7, ROWS).astype("m8[s]"),
            "value": np.round(random.normal(size=ROWS), 6),
            "amount": np.round(random.random(ROWS) * 1000, 2),
            "kind": words[random.integers(0, len(words), ROWS)],
            "count": random.integers(0, 100_000, ROWS),
        }
    )
    paths = {"csv": folder / "rows.csv", "parquet": folder / "rows.parquet"}
    pc.write_csv(table, paths["csv"], pc.WriteOptions(quoting_style="none", quoting_header="none"))
    pq.write_table(table, paths["parquet"], row_group_size=500_000)
    return paths


def _measure(python: Path, work: str, source: Path, contenders: Sequence[str]) -> dict[str, Measured]:
    """Let contenders take turns; give the medians. The slow ones run once."""
    found: dict[str, list[Measured]] = {}
    for turn in range(RUNS):
        for contender in contenders:
            if turn and contender in ("pandas", "mltable") and work != "read_csv":
                continue
            interpreter = Path(sys.executable) if contender in ("ours", "pandas", "pyarrow") else python
            found.setdefault(contender, []).append(_run(interpreter, contender, work, source))
    return {name: Measured(*(median(each) for each in zip(*runs, strict=True))) for name, runs in found.items()}


def _run(interpreter: Path, contender: str, work: str, source: Path) -> Measured:
    script = Path(__file__).with_name("table_contenders.py")
    with TemporaryDirectory(dir=source.parent) as folder:
        command = [str(each) for each in (interpreter, script, contender, work, source, folder)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        if work != "read_csv":
            _check_parts(contender, *(_count_rows(Path(folder, name), work) for name in ("train", "test")))
    return Measured(**json.loads(printed.splitlines()[-1]))


def _count_rows(part: Path, work: str) -> int:
    if work == "split_parquet":
        return int(pq.read_metadata(part).num_rows)
    with part.open("rb") as stream:
        return sum(line_ends.count(b"\n") for line_ends in iter(lambda: stream.read(1 << 20), b"")) - 1


def _check_parts(contender: str, train: int, test: int) -> None:
    """Refuse what is no sample of half the rows, in parts of 80 and 20 %: both are off by less than 1 % of the rows."""
    wanted = ROWS * SAMPLE * SPLIT, ROWS * SAMPLE * (1 - SPLIT)
    if any(abs(found - rows) > ROWS / 100 for found, rows in zip((train, test), wanted, strict=True)):
        raise RuntimeError(f"{contender} wrote {train} and {test} rows, not about {wanted[0]:.0f} and {wanted[1]:.0f}")
