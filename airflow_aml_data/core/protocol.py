"""The contract between a step and the script it runs: one JSON file and a few environment variables.

Both sides import this module; it needs the standard library only, because it also runs in the
interpreter of the user's script.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RUN_FILE_VARIABLE = "AML_DATA_RUN_FILE"
"""Environment variable with the path of the :class:`RunFile`. Set only inside a step."""

PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInput:
    """One named input as the script finds it.

    :param path: Local path of the mounted or downloaded data; None in direct mode.
    :param dataset: Definition of the dataset, JSON; how ``input_datasets`` opens it in direct mode.
    """

    mode: str
    path: str | None
    dataset: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """What a script can ask its run: identity, inputs, outputs, and how to reach the workspace.

    :param parent_id: Id of the DAG run, safe in a path.
    :param folder: The script's working directory.
    :param shipped: State of the files its sources have in the folders of run files; see :mod:`.run_files`.
    :param files_folder: Where files uploaded to the run go.
    :param records_file: Where metrics and tags go; see :mod:`.records`.
    :param parent_records_file: What earlier steps reported to the pipeline's run; ``""``: the catalog tells.
    :param started_at: ISO 8601, UTC.
    :param log_url: Where the Airflow UI shows the task; ``""`` outside Airflow.
    """

    id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    conn_id: str
    workspace: Mapping[str, Any] = field(repr=False)
    inputs: Mapping[str, RunInput] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    parent_id: str = ""
    script_name: str = ""
    arguments: Sequence[str] = ()
    folder: str = ""
    shipped: Mapping[str, Sequence[int]] = field(default_factory=dict, repr=False)
    files_folder: str = ""
    records_file: str = ""
    parent_records_file: str = ""
    started_at: str = ""
    log_url: str = ""

    def write(self, path: Path) -> None:
        """Store the file, readable by its owner only: a workspace may hold credentials."""
        text = json.dumps({"version": PROTOCOL_VERSION, **asdict(self)}, indent=1)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    @classmethod
    def current(cls, environ: Mapping[str, str] = os.environ) -> RunFile | None:
        """The file of the step this process runs in, or None outside any step."""
        path = environ.get(RUN_FILE_VARIABLE)
        if path is None:
            return None
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        version = content.pop("version", None)
        if version != PROTOCOL_VERSION:
            raise RuntimeError(
                f"The step was started by a different release of airflow-aml-data: its run file has version {version}, "
                f"this one reads version {PROTOCOL_VERSION}. Install the same release on every worker."
            )
        content["arguments"] = tuple(content["arguments"])
        content["inputs"] = {name: RunInput(**each) for name, each in content["inputs"].items()}
        return cls(**content)
