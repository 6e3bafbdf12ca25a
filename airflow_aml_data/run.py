"""The script side: what a step's script asks about itself and reports, as in the SDK v1.

>>> from airflow_aml_data import Run
>>> run = Run.get_context()
>>> run.id.startswith("OfflineRun")
True

Importing this module costs a few milliseconds and needs the standard library only. pandas is
imported when a script asks a dataset for a DataFrame, not before.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core.protocol import RunFile
from airflow_aml_data.core.records import PARENT, Record, append, read
from airflow_aml_data.core.run_files import add_file, stored_files, written_files
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration, NotOffered, OfflineRun
from airflow_aml_data.reports import V1, Reports

if TYPE_CHECKING:
    from airflow_aml_data.core.models import Model
    from airflow_aml_data.core.workspace import Workspace


class RunEnvironmentException(OfflineRun):
    """``get_context(allow_offline=False)`` was called outside a pipeline step."""


class Experiment(V1):
    """The experiment of a run: on Airflow, its DAG.

    :param workspace: The workspace, or the id of its Airflow connection.
    :param name: The id of the DAG.
    """

    def __init__(self, workspace: Workspace | str, name: str) -> None:
        self._workspace = workspace
        self.name = name

    def __repr__(self) -> str:
        return f"Experiment(name={self.name!r})"

    @property
    def workspace(self) -> Workspace:
        """The workspace the step runs in; its datastores and datasets are reachable from the script."""
        if not isinstance(self._workspace, str):
            return self._workspace
        from airflow_aml_data.core.workspace import Workspace

        return Workspace(self._workspace)

    def start_logging(self, *args: Any, display_name: str | None = None, **kwargs: Any) -> Run:
        """A run to log to, for use in ``with``: inside a step a child of its run, by hand an offline run.

        The other arguments are v1's: snapshots, which are not taken here.
        """
        return Run.get_context().child_run(display_name)


class Run(Reports):
    """The run of a step, or of the pipeline it belongs to: what :meth:`get_context` and :attr:`parent` return.

    What is logged, tagged and uploaded appears in the task log, and when the script has ended well in XCom: metrics as
    the task's return value, files as the output ``run_files``, tags and properties under ``run_details``.

    :param run_id: ``Run(experiment, run_id)`` opens the run of this step or its parent, by their ids.
    :raises NotOffered: for any other run.

    Source: v1, ``azureml.core.Run``.
    """

    type = "azureml.StepRun"

    def __init__(self, experiment: Experiment | None, run_id: str, outputs: Any = None) -> None:
        file = RunFile.current()
        if file is None or run_id not in (file.id, file.parent_id):
            raise NotOffered(
                f"Run {run_id!r} cannot be opened: a script reaches the run of its own step and its parent, "
                f"{f'{file.id!r} and {file.parent_id!r}' if file else 'and this one runs by hand'}. Pass data of other runs "
                "to the step as inputs."
            )
        self._open(file, run_id)
        if run_id == file.parent_id:
            self.type, self._run = "azureml.PipelineRun", PARENT

    def _open(self, file: RunFile | None, run_id: str) -> None:
        self._file = file
        self.id = run_id
        self._inputs: _Inputs | None = None

    def __repr__(self) -> str:
        return f"Run(id={self.id!r})"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.complete()

    @staticmethod
    def get_context(allow_offline: bool = True) -> Run:
        """The run of the step this script is started by, or an offline run when it is started by hand.

        :param allow_offline: False: raise instead of returning an offline run.
        :raises RunEnvironmentException: outside a step, with ``allow_offline=False``.

        Source: v1, ``azureml.core.Run.get_context``.
        """
        file = RunFile.current()
        if file is not None:
            return Run(None, file.id)
        if not allow_offline:
            raise RunEnvironmentException(
                "This script does not run inside a pipeline step, and allow_offline=False asks for one. "
                "Start it with PythonScriptStepOperator."
            )
        return _OfflineRun()

    get_submitted_run = get_context

    @staticmethod
    def get(workspace: Workspace, run_id: str) -> Run:
        """The run of this step or its parent, by id; any other raises :exc:`.NotOffered`."""
        return Run(None, run_id)

    @property
    def experiment(self) -> Experiment:
        """The DAG this run belongs to, and through it the workspace."""
        file = self._inside_a_step("experiment")
        return Experiment(file.conn_id, file.dag_id)

    @property
    def parent(self) -> Run | None:
        """The run of the pipeline: here, the DAG run. What is logged and uploaded to it arrives with this step's."""
        file = self._inside_a_step("parent")
        return None if self._run == PARENT else Run(None, file.parent_id)

    @property
    def number(self) -> int:
        """Which try of the step it is: 1, 2, 3 and so on."""
        return self._inside_a_step("number").try_number

    @property
    def display_name(self) -> str:
        """The id of the task; for the pipeline's run, of the DAG run. Setting it sets a tag: tasks keep their ids."""
        return self._name()

    @display_name.setter
    def display_name(self, name: str) -> None:
        self.tag("display_name", name)

    @property
    def name(self) -> str:
        """The same as :attr:`display_name`."""
        return self.display_name

    @property
    def status(self) -> str:
        """``"Running"``, or ``"Failed"`` after :meth:`fail`."""
        failed = any(each.kind == "failed" and each.run == self._run for each in self._records())
        return "Failed" if failed else "Running"

    def get_status(self) -> str:
        """The same as :attr:`status`."""
        return self.status

    def get_portal_url(self) -> str:
        """Where the Airflow UI shows the run: the log of the task, or the DAG run.

        :raises NotOffered: when the step was not started by Airflow.
        """
        url = self._inside_a_step("get_portal_url()").log_url
        if not url:
            raise NotOffered("This step was not started by Airflow, so that no page shows it.")
        return url.partition("/tasks/")[0] if self._run == PARENT else url

    def get_details(self) -> dict[str, Any]:
        """What the run is, with v1's keys: id, status, start, inputs, outputs, script and arguments."""
        file = self._inside_a_step("get_details()")
        inputs = [
            {
                "dataset": {"id": each.dataset.get("id")},
                "consumptionDetails": {"type": "RunInput", "inputName": name, "mechanism": each.mode.capitalize()},
            }
            for name, each in file.inputs.items()
        ]
        outputs = [
            {"outputType": "RunOutput", "outputDetails": {"outputName": name, "pathOnCompute": path}}
            for name, path in file.outputs.items()
        ]
        return {
            "runId": self.id,
            "target": "local",
            "status": self.status,
            "startTimeUtc": file.started_at,
            "properties": self.get_properties(),
            "inputDatasets": inputs,
            "outputDatasets": outputs,
            "runDefinition": {"script": file.script_name, "arguments": list(file.arguments), "target": "local"},
            "logFiles": {},
        }

    @property
    def input_datasets(self) -> Mapping[str, Any]:
        """Input name to a local path (mount, download) or to the dataset itself (direct).

        Source: the article, "Access datasets within your script".
        """
        if self._inputs is None:
            self._inputs = _Inputs(self._inside_a_step("input_datasets"))
        return self._inputs

    @property
    def output_datasets(self) -> Mapping[str, str]:
        """Output name to the local path the script writes to."""
        return dict(self._inside_a_step("output_datasets").outputs)

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        **more: Any,
    ) -> Model:
        """Register files of the run as the next version of a model, now; see :meth:`.Model.register`.

        :param model_path: Name of a file or folder among the run's files; None: ``model_name``.
        :param more: What v1 knows about serving models (``model_framework``, ``datasets`` and so on) becomes tags.
        :raises FilesNotFound: with the names there are.
        """
        from airflow_aml_data.core.models import Model

        path = (model_path or model_name).removeprefix("./").rstrip("/")
        files = self._files()
        chosen = {name: file for name, file in files.items() if name == path or name.startswith(f"{path}/")}
        if not chosen:
            raise FilesNotFound(
                f"The run has no file {path!r} to register as model {model_name!r}; it has: "
                f"{', '.join(sorted(files)[:20]) or 'none'}. Write it to ./outputs, or upload it with run.upload_file()."
            )
        with tempfile.TemporaryDirectory(prefix="aml_data_") as folder:
            for name, file in chosen.items():
                add_file(Path(folder), name, file)
            return Model.register(
                self.experiment.workspace, Path(folder, path), model_name, tags, properties, description, **more
            )

    def child_run(self, name: str | None = None, **more: Any) -> Run:
        """A run below this one, for use in ``with``. Its metrics arrive as ``name.metric``, its files as ``name/file``.

        :param name: None: ``child_1``, ``child_2`` and so on.
        :raises InvalidDeclaration: for the name ``parent``.
        """
        if name == PARENT:
            raise InvalidDeclaration(
                f"{PARENT!r} is what the pipeline's run is called. Give the child run another name."
            )
        name = name or f"child_{len(list(self.get_children())) + 1}"
        self._report("child", name, None)
        return _ChildRun(self, name)

    def get_children(self, recursive: bool = False, **more: Any) -> Iterator[Run]:
        """The runs made by :meth:`child_run`."""
        names = dict.fromkeys(each.name for each in self._records() if each.kind == "child" and each.run == self._run)
        return (_ChildRun(self, name) for name in names)

    def start(self) -> None:
        """The run has started already; harmless."""

    def complete(self, _set_status: bool = True) -> None:
        """Harmless: a step is complete when its script has ended."""

    def flush(self, timeout_seconds: int = 300) -> None:
        """Harmless: everything is written when the call that reports it returns."""

    def fail(self, error_details: Any = None, error_code: Any = None) -> None:
        """The step fails when the script has ended, whatever its exit code; nothing is published. Its retries follow.

        :param error_details: What is said about it, in the log and in the error.
        """
        details = str(error_details) if error_details is not None else "no details given"
        self._report("failed", "Run.fail", f"[{error_code}] {details}" if error_code is not None else details)

    def cancel(self) -> None:
        """End the script here. The step fails without retries, nothing is published, and no step after it runs."""
        self._report("canceled", "Run.cancel", self.id)
        raise SystemExit(f"The script cancelled run {self.id}.")

    def wait_for_completion(self, *args: Any, **more: Any) -> dict[str, Any]:
        """For child runs; a step that waits for itself, or for its pipeline, would never end.

        :raises NotOffered: for other runs.
        """
        raise NotOffered(
            "A script cannot wait for the end of its own run, nor of its pipeline's. In the DAG, let the step that has to "
            "wait read an output of this one, or declare `this >> that`."
        )

    def _inside_a_step(self, asked: str) -> RunFile:
        if self._file is None:
            raise OfflineRun(
                f"Run.{asked} exists only inside a pipeline step, and this script runs by hand ({self.id}). "
                "Start it with PythonScriptStepOperator, or pass it paths as arguments."
            )
        return self._file

    def _name(self) -> str:
        file = self._inside_a_step("display_name")
        return file.run_id if self._run == PARENT else file.task_id

    def _keep(self, record: Record) -> None:
        append(Path(self._inside_a_step("log").records_file), record)

    def _records(self) -> list[Record]:
        return read(Path(self._inside_a_step("get_metrics()").records_file))

    def _known(self) -> list[Record]:
        if self._run != PARENT:
            return self._records()
        file = self._inside_a_step("get_metrics()")
        if file.parent_records_file:
            return read(Path(file.parent_records_file)) + self._records()
        from airflow_aml_data.core import parent

        return parent.find(self.experiment.workspace.connect(), file.dag_id, file.run_id) + self._records()

    def _prefix(self) -> str:
        return f"{self._run}/" if self._run not in ("", PARENT) else ""

    def _add_file(self, name: str, file: Path) -> None:
        add_file(Path(self._inside_a_step("upload_file()").files_folder), self._prefix() + name, file)
        self._say(f"file {name} of the run: {file.stat().st_size:,} bytes")

    def _files(self) -> dict[str, Path]:
        told = self._inside_a_step("get_file_names()")
        files = written_files(Path(told.folder), told.shipped) | stored_files(Path(told.files_folder))
        prefix = self._prefix()
        return {name.removeprefix(prefix): file for name, file in files.items() if name.startswith(prefix)}


class _ChildRun(Run):
    """A run below that of the step. Made by :meth:`Run.child_run`."""

    type = "azureml.ChildRun"

    def __init__(self, parent: Run, name: str) -> None:
        self._open(parent._file, f"{parent.id}_{name}")
        self._parent, self._run = parent, name if parent._run in ("", PARENT) else f"{parent._run}.{name}"

    @property
    def parent(self) -> Run:
        return self._parent

    def _name(self) -> str:
        return self._run

    def cancel(self) -> None:
        """Say so; the step goes on, as the child run's work is the script's own."""
        self._report("canceled", "Run.cancel", self.id)

    def wait_for_completion(self, *args: Any, **more: Any) -> dict[str, Any]:
        """Nothing runs on its own in a child run: returns :meth:`get_details` at once."""
        return self.get_details()


class _OfflineRun(Run):
    """The run of a script started by hand: it prints what a step would report, and has no data of a step."""

    type = "azureml.OfflineRun"

    def __init__(self) -> None:
        self._open(None, f"OfflineRun_{os.urandom(8).hex()}")
        self._kept: list[Record] = []

    @property
    def parent(self) -> Run:
        """Another offline run, so that a script that logs to its pipeline's run can be tried by hand."""
        return _OfflineRun()

    @property
    def number(self) -> int:
        """1: by hand, a script is tried once."""
        return 1

    def _name(self) -> str:
        return self.id

    def child_run(self, name: str | None = None, **more: Any) -> Run:
        """Another offline run."""
        return _OfflineRun()

    def _keep(self, record: Record) -> None:
        self._kept.append(record)

    def _records(self) -> list[Record]:
        return self._kept

    def _add_file(self, name: str, file: Path) -> None:
        self._say(f"file {name} of the run: {file.stat().st_size:,} bytes; not kept, as this script runs by hand")


class _Inputs(Mapping[str, Any]):
    """Named inputs; a dataset in direct mode is opened when it is asked for.

    A script may add to it, as v1 scripts do to show a dataset with their run: for the script itself.
    """

    def __init__(self, file: RunFile) -> None:
        self._file = file
        self._added: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._added:
            return self._added[name]
        if name not in self._file.inputs:
            raise KeyError(
                f"This step has no input named {name!r}; it has: {', '.join(self._file.inputs) or 'none'}. "
                "Name it with as_named_input() and give it to the step."
            )
        found = self._file.inputs[name]
        if found.mode != "direct":
            return found.path
        from airflow_aml_data.core.factory import from_definition
        from airflow_aml_data.core.workspace import Workspace

        return from_definition(Workspace(self._file.conn_id), found.dataset)

    def __setitem__(self, name: str, dataset: Any) -> None:
        self._added[name] = dataset

    def __iter__(self) -> Iterator[str]:
        return iter({**self._file.inputs, **self._added})

    def __len__(self) -> int:
        return len({**self._file.inputs, **self._added})
