"""What a run reports: metrics, tags, properties and files, as in the SDK v1. Standard library only."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_aml_data.core.records import Kind, Record, metrics_of, plain, settings_of
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration, NotOffered

_SHOWN_CHARACTERS = 500
"""Of a metric's value in the log."""

_AIRFLOW_UI = "Look at the task in the Airflow UI: Logs and Details."
_DECLARE_STEPS = "Declare more steps in the DAG; .partial().expand() makes one for each value."
_INSTEAD = {
    "create_children": _DECLARE_STEPS,
    "submit_child": _DECLARE_STEPS,
    "submit": _DECLARE_STEPS,
    "get_runs": _AIRFLOW_UI,
    "get_all_logs": _AIRFLOW_UI,
    "get_details_with_logs": _AIRFLOW_UI,
    "get_detailed_status": _AIRFLOW_UI,
    "get_secret": 'Hand it over: RunConfiguration(environment_variables={"KEY": "{{ var.value.key }}"}), os.environ["KEY"] here.',
    "get_secrets": 'Hand them over: RunConfiguration(environment_variables={"KEY": "{{ var.value.key }}"}).',
    "get_environment": "The interpreter is what the step's RunConfiguration says; sys.prefix is where it lies.",
    "get_snapshot_id": "The sources of a step are the files of source_directory; keep them under version control.",
    "restore_snapshot": "The sources of a step are the files of source_directory; keep them under version control.",
    "take_snapshot": "The sources of a step are the files of source_directory; keep them under version control.",
}
"""What the SDK v1 has and a step's script cannot have here, and what to do."""


class V1:
    """Says of what the SDK v1 has and this package has not, what to do instead."""

    def __getattr__(self, name: str) -> Any:
        if name in _INSTEAD:
            raise NotOffered(f"{type(self).__name__.lstrip('_')}.{name} of the SDK v1 is not offered. {_INSTEAD[name]}")
        return object.__getattribute__(self, name)  # raises what a property raised, or Python's own error


class Reports(V1):
    """The calls with which a script reports; how they are kept is the subclass's affair."""

    _run: str = ""
    """What the run is called in a :class:`.Record`."""

    def _keep(self, record: Record) -> None:
        raise NotImplementedError

    def _records(self) -> list[Record]:
        raise NotImplementedError

    def _known(self) -> list[Record]:
        """The records of this step, and what other steps have reported to the same run."""
        return self._records()

    def _add_file(self, name: str, file: Path) -> None:
        raise NotImplementedError

    def _files(self) -> dict[str, Path]:
        raise NotImplementedError

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """Report one value of a metric: it appears in the task log and in the step's XCom.

        Logged again, the values make a list, in the order in which they were logged.

        :param value: A number or text; NumPy values are taken as the Python value they hold.
        :param step: v1's position on an axis; it appears in the log only.
        """
        self._log(name, value, "value", description if step is None else f"{description} step {step}".strip())

    def log_list(self, name: str, value: Sequence[Any], description: str = "") -> None:
        """Report a list of values under one name; logged again, the list grows."""
        self._log(name, list(value), "list", description)

    def log_row(self, name: str, description: str = "", **kwargs: Any) -> None:
        """Report a row of named values; rows logged under one name make a table: column to list of values."""
        self._log(name, {column: [value] for column, value in kwargs.items()}, "columns", description)

    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        """Report a table: column to list of values, or to one value."""
        columns = {name: plain(each) for name, each in value.items()}
        table = {name: each if isinstance(each, list) else [each] for name, each in columns.items()}
        self._log(name, table, "columns", description)

    def log_image(self, name: str, path: str | Path | None = None, plot: Any = None, description: str = "") -> None:
        """Keep an image with the run's files; the metric's value is its name there.

        :param path: An image file.
        :param plot: A matplotlib figure, or ``matplotlib.pyplot`` for the current one: stored as PNG.
        :raises InvalidDeclaration: unless exactly one of ``path`` and ``plot`` is given.
        """
        if (path is None) == (plot is None):
            raise InvalidDeclaration("log_image wants a path or a plot, one of them.")
        taken = metrics_of(self._records(), self._run).get(name, [])
        number = len(taken) if isinstance(taken, list) else 1
        stem = f"{name}_{number}" if number else name
        with tempfile.TemporaryDirectory(prefix="aml_data_") as folder:
            if plot is not None:
                path = Path(folder, "plot.png")
                plot.savefig(path, format="png")
            file_name = f"{stem}{Path(str(path)).suffix}"
            self.upload_file(file_name, path)
        self._log(name, file_name, "value", description)

    def log_confusion_matrix(self, name: str, value: Any, description: str = "") -> None:
        """Report a confusion matrix.

        :param value: v1's dictionary, its JSON text, the path of a JSON file, or an array.
        """
        self._log(name, _from_json(value), "value", description)

    log_accuracy_table = log_confusion_matrix
    log_predictions = log_confusion_matrix
    log_residuals = log_confusion_matrix

    def get_metrics(self, name: str | None = None, recursive: bool = False, **more: Any) -> dict[str, Any]:
        """What has been logged to the run so far: a value, a list, or column to list of values.

        The pipeline's run also has what its steps that have ended logged to it.

        :param name: Only the metric of that name.
        :param recursive: v1's; what child runs have logged is asked of :meth:`get_children`.
        """
        found = metrics_of(self._known(), self._run)
        return found if name is None else {each: found[each] for each in found if each == name}

    @property
    def tags(self) -> dict[str, Any]:
        """The tags that were set on the run."""
        return settings_of(self._known(), "tag", self._run)

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that were set on the run."""
        return settings_of(self._known(), "property", self._run)

    def get_tags(self) -> dict[str, Any]:
        """The same as :attr:`tags`."""
        return self.tags

    def get_properties(self) -> dict[str, Any]:
        """The same as :attr:`properties`."""
        return self.properties

    def tag(self, key: str, value: Any = None) -> None:
        """Set a tag; without a value it is the empty text."""
        self._report("tag", key, "" if value is None else str(value))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set several tags; others stay."""
        for key, value in tags.items():
            self.tag(key, value)

    def remove_tags(self, tags: str | Sequence[str]) -> None:
        """Remove a tag, or several."""
        for key in [tags] if isinstance(tags, str) else tags:
            self._report("tag", key, None)

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Set properties. They never change.

        :raises InvalidDeclaration: for one that has another value.
        """
        known = self.properties
        for key, value in properties.items():
            if known.get(key, str(value)) != str(value):
                raise InvalidDeclaration(
                    f"Property {key!r} is {known[key]!r}: properties never change. Set a tag instead."
                )
            self._report("property", key, str(value))

    def upload_file(self, name: str, path_or_stream: Any, datastore_name: str | None = None) -> None:
        """Keep a file with the run's files, as it is now.

        :param name: Its name there: a relative path.
        :param path_or_stream: A local file, or an open one.
        :raises FilesNotFound: when there is no such file.
        :raises FilesExist: when the run has another file of that name. Source: v1.
        """
        if datastore_name is not None:
            raise NotOffered(
                "datastore_name is not offered: files of a run go to the workspace's default datastore. For another one, "
                "write to an output: OutputFileDatasetConfig(destination=(datastore, path))."
            )
        if not hasattr(path_or_stream, "read"):
            file = Path(path_or_stream)
            if not file.is_file():
                raise FilesNotFound(f"There is no file {str(file)!r} to upload as {name!r}; looked from {Path.cwd()}.")
            self._add_file(name, file)
            return
        with tempfile.TemporaryDirectory(prefix="aml_data_") as folder:
            file = Path(folder, "stream")
            content = path_or_stream.read()
            file.write_bytes(content.encode() if isinstance(content, str) else content)
            self._add_file(name, file)

    def upload_files(self, names: Sequence[str], paths: Sequence[str | Path], **more: Any) -> None:
        """Keep several files: the first name is of the first path, and so on."""
        if len(names) != len(paths):
            raise InvalidDeclaration(f"upload_files wants a name for each path, found {len(names)} and {len(paths)}.")
        for name, path in zip(names, paths, strict=True):
            self.upload_file(name, path, more.get("datastore_name"))

    def upload_folder(self, name: str, path: str | Path, datastore_name: str | None = None) -> None:
        """Keep all files below a local folder, under ``name``.

        :raises FilesNotFound: when the folder is not there or holds none.
        """
        files = [each for each in sorted(Path(path).rglob("*")) if each.is_file()]
        if not files:
            raise FilesNotFound(f"There is no folder {str(path)!r} with files to upload; looked from {Path.cwd()}.")
        for each in files:
            self.upload_file(f"{name}/{each.relative_to(path)}", each, datastore_name)

    def get_file_names(self) -> list[str]:
        """The names of the run's files so far: what was uploaded, and what is new below ``./outputs`` and ``./logs``."""
        return sorted(self._files())

    def download_file(self, name: str, output_file_path: str | Path | None = None, **more: Any) -> None:
        """Copy one of the run's files.

        :param output_file_path: File, or a folder that is there; None: its base name in the working directory.
        :raises FilesNotFound: with the names there are.
        """
        files = self._files()
        if name not in files:
            raise FilesNotFound(f"The run has no file {name!r}; it has: {', '.join(sorted(files)[:20]) or 'none'}.")
        target = Path(output_file_path or Path(name).name)
        target = target / Path(name).name if target.is_dir() else target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], target)

    def download_files(
        self, prefix: str | None = None, output_directory: str | Path | None = None, **more: Any
    ) -> None:
        """Copy the run's files whose names begin with ``prefix`` below a folder; None: the working directory."""
        for name in self._files():
            if name.startswith(prefix or ""):
                self.download_file(name, Path(output_directory or ".", name))

    def _log(self, name: str, value: Any, kind: Kind, description: str) -> None:
        shown = plain(value)
        self._keep(Record(name=name, kind=kind, value=shown, run=self._run))
        text = str(shown)
        if len(text) > _SHOWN_CHARACTERS:
            text = f"{text[:_SHOWN_CHARACTERS]}... ({len(text):,} characters)"
        self._say(f"metric {name} = {text}" + (f" ({description})" if description else ""))

    def _report(self, kind: Kind, name: str, value: Any) -> None:
        self._keep(Record(name=name, kind=kind, value=value, run=self._run))
        self._say(f"{kind} {name}" + ("" if value is None else f" = {value}"))

    def _say(self, text: str) -> None:
        print(f"{self._run}: {text}" if self._run else text, flush=True)


def _from_json(value: Any) -> Any:
    """What v1's log calls for charts take: a dictionary, JSON text, the path of a JSON file."""
    if not isinstance(value, str):
        return value
    return json.loads(value if value.lstrip().startswith(("{", "[")) else Path(value).read_text(encoding="utf-8"))
