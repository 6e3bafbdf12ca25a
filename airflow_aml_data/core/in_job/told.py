"""What a job is told of its step, and what it reports: JSON files, read and written on both sides. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 1

TOLD, TOLD_FILE = "aml_data_step", "step.json"
"""The job's input that holds the :class:`ToldStep`, and the file in it."""
REPORT, REPORT_FILE, RECORDS_FILE = "aml_data_report", "report.json", "records.jsonl"
"""The job's output that gets the :class:`Report`, and the files in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldInput:
    """One named input of the step.

    :param dataset: Its definition, with its id.
    :param place: Where the script wants the files (``path_on_compute``).
    :param chosen: The files of a selection: an input of the job, the path below it (``""``: it is a file), and the path that the script
        finds the file at. None: the job's input of the same name is the step's.
    :param is_made: The files have to be made of a table first.
    :param is_single: The script gets the path of the one file.
    """

    mode: str
    dataset: Mapping[str, Any]
    place: str | None = None
    chosen: Sequence[Sequence[str]] | None = None
    is_made: bool = False
    is_single: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldOutput:
    """One output of the step.

    :param source: A folder of the author's own that is the output; relative to the working directory.
    :param file_name: What the output is called in its folder when the script makes it a file.
    """

    mode: str
    source: str | None
    source_globs: Sequence[str] | None
    file_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldStore:
    """What the job may read of a datastore.

    :param folders: Path on the datastore to the job's input that shows it, a folder or a file.
    :param files: Path, size, etag, time of the last change and checksum of each file, as the worker has listed them.
    :param contents: Text of small files, by path.
    """

    folders: Mapping[str, str]
    files: Sequence[Sequence[Any]]
    contents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldStep:
    """Everything but the job's own paths.

    :param run: The fields of the script's :class:`.RunFile` that the worker knows.
    :param stores: By the name of the datastore.
    :param parent_records: What earlier steps reported to the pipeline's run, one JSON text each.
    """

    run: Mapping[str, Any]
    inputs: Mapping[str, ToldInput]
    outputs: Mapping[str, ToldOutput]
    stores: Mapping[str, ToldStore]
    parent_records: Sequence[str] = ()

    def to_bytes(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> ToldStep:
        told = _of_this_version(content, "step")
        for name, kind in (("inputs", ToldInput), ("outputs", ToldOutput), ("stores", ToldStore)):
            told[name] = {key: kind(**value) for key, value in told[name].items()}
        return cls(**told)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedOutput:
    """What the script left in an output.

    :param files: Path, size and ``md5:`` checksum of each file; of an output in mount mode the last is ``""``.
    :param is_file: The script made the output a file, which lies in the output's folder.
    """

    files: Sequence[Sequence[Any]]
    is_file: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How the script ended.

    :param exit_code: Negative: the number of the signal that ended it.
    :param unusable: Why an output cannot be stored; ``""`` when all can.
    :param outputs: By name; none when the script ended badly.
    """

    exit_code: int
    unusable: str
    outputs: Mapping[str, ReportedOutput]

    def to_bytes(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Report:
        report = _of_this_version(content, "report")
        report["outputs"] = {key: ReportedOutput(**value) for key, value in report["outputs"].items()}
        return cls(**report)


def slot_text(name: str, *, is_output: bool) -> str:
    """What stands for an input or output among arguments until its place is known. Source: v1, semantics section 8."""
    return f"{'DatasetOutputConfig' if is_output else 'DatasetConsumptionConfig'}:{name}"


def _of_this_version(content: bytes, what: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(content)
    if (version := told.pop("version", None)) != VERSION:
        raise ValueError(f"The job's {what} is of version {version!r}; this release knows version {VERSION}.")
    return told
