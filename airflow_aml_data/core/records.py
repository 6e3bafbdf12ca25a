"""What a script reports to its step while it runs: metrics, tags, and how it wants to end.

One file, one JSON object a line. Every process of the script may append to it, and read back what the others
reported. Standard library only: it also runs in the interpreter of the user's script.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger(__name__)

PARENT = "parent"
"""What the run of the whole pipeline is called in a :class:`Record`."""

RUN_DETAILS = "run_details"
"""XCom key of the tags and properties a script set."""

PARENT_FILE = "parent_run.jsonl"
"""Among a run's files: what it reported to its pipeline's run."""
ALL_METRICS_FILE = "metrics_of_the_step.json"
"""Among a run's files: its metrics, when they are more than XCom carries."""

AZUREML_JOB = "azureml_job"
"""XCom key of the name of a step's job, and where it and its outputs are looked at."""

XCOM_BYTES = 64 * 1024
"""JSON of all metrics that goes to XCom, which is read as a whole and shown in the UI; what is more goes to a file."""

Kind = Literal["value", "list", "columns", "tag", "property", "child", "failed", "canceled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing a script reported.

    :param run: ``""`` for the step's own run, :data:`PARENT`, or the name of a child run.
    """

    name: str
    kind: Kind = "value"
    value: Any = None
    run: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.run, str) or not _fits(self.kind, self.value):
            raise TypeError(f"not a record: {self!r}")


def append(file: Path, record: Record) -> None:
    """Add a record; whole lines also when several processes write at once."""
    line = json.dumps(asdict(record)).encode() + b"\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        out.write(line)


def read(file: Path) -> list[Record]:
    """All records so far; a line that is none is logged and left out."""
    return parse(file.read_bytes()) if file.is_file() else []


def parse(content: bytes) -> list[Record]:
    """The records a file holds."""
    records = []
    for line in content.splitlines():
        try:
            records.append(Record(**json.loads(line, parse_constant=str)))
        except (ValueError, TypeError):  # the script's own doing, and no reason to lose its outputs
            log.warning("A metric cannot be read: %r", line[:200])
    return records


def plain(value: Any) -> Any:
    """A value as JSON has it: NumPy, pandas and PyTorch values as the Python values they hold, anything else as text.

    A number that is not finite becomes the text ``nan``, ``inf`` or ``-inf``: JSON has no such numbers, and a
    database refuses them.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    elif hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return str(value)


def metrics_of(records: Iterable[Record], run: str = "") -> dict[str, Any]:
    """The metrics of one run, in the shapes of v1's ``get_metrics``.

    A value that was logged once is that value, several are a list; a list is a list; rows and tables are columns,
    each with the list of its values.
    """
    found: dict[str, list[Record]] = {}
    for each in records:
        if each.run == run and each.kind in ("value", "list", "columns"):
            found.setdefault(each.name, []).append(each)
    return {name: _merged(each) for name, each in found.items()}


def metrics_of_step(records: Sequence[Record]) -> dict[str, Any]:
    """The metrics of a step with those its script logged on the pipeline's run and on child runs.

    A metric of a child run is called ``child.metric``. One of the pipeline's run keeps its name, unless the step has
    another value under it: then it is ``parent.metric``.
    """
    metrics = own = metrics_of(records)
    for run in dict.fromkeys(each.run for each in records if each.run):
        for name, value in metrics_of(records, run).items():
            same = run == PARENT and own.get(name, value) == value
            metrics = {**metrics, name if same else f"{run}.{name}": value}
    return metrics


def fitting(metrics: Mapping[str, Any], limit_bytes: int = XCOM_BYTES) -> tuple[dict[str, Any], list[str]]:
    """The metrics that go to XCom, and the names of those that are too large; small ones come first."""
    sizes = {name: len(json.dumps({name: value})) for name, value in metrics.items()}
    left_out = []
    for name in sorted(sizes, key=lambda each: sizes[each]):
        limit_bytes -= sizes[name]
        if limit_bytes < 0:
            left_out.append(name)
    return {name: value for name, value in metrics.items() if name not in left_out}, left_out


def keep(records: Sequence[Record], folder: Path) -> None:
    """Put with the files of a run what has no other place: what it reported to its pipeline's run, and metrics that XCom does not carry.

    :param folder: That of the run's files.
    """
    for each in records:
        if each.run == PARENT:
            append(folder / PARENT_FILE, each)
    metrics = metrics_of_step(records)
    if fitting(metrics)[1]:
        (folder / ALL_METRICS_FILE).write_text(json.dumps(metrics), encoding="utf-8")


def settings_of(records: Iterable[Record], kind: Kind, run: str = "") -> dict[str, Any]:
    """Tags or properties of a run; the last one of a name counts, and None is one that was removed."""
    found = {each.name: each.value for each in records if each.kind == kind and each.run == run}
    return {name: value for name, value in found.items() if value is not None}


def _fits(kind: str, value: Any) -> bool:
    if kind == "columns":
        return isinstance(value, dict) and all(isinstance(each, list) for each in value.values())
    return kind != "list" or isinstance(value, list)


def _merged(records: Sequence[Record]) -> Any:
    if all(each.kind == "columns" for each in records):
        return _columns([each.value for each in records])
    if len(records) == 1 and records[0].kind == "value":
        return records[0].value
    values: list[Any] = []
    for each in records:
        values += each.value if each.kind == "list" else [each.value]
    return values


def _columns(parts: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Rows and tables one below the other; None where one lacks a column."""
    table: dict[str, list[Any]] = {name: [] for part in parts for name in part}
    for part in parts:
        rows = max(map(len, part.values()), default=0)
        for name, column in table.items():
            given = part.get(name, [])
            column += given + [None] * (rows - len(given))
    return table
