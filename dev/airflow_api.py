"""Airflow's REST API, as far as the demo, the tests and the bench need it."""

import json
import time
from collections.abc import Callable, Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

POLL_SECONDS = 0.2
FINISHED = ("success", "failed")
LOCKED_TRIES = 10
ANSWER_SECONDS = 120

TaskInstance = dict[str, Any]
"""A task instance as REST gives it: ``task_id``, ``map_index``, ``state``, ``try_number``, ..."""


class ApiError(RuntimeError):
    """Airflow answered with an error: ``status`` and its text."""

    def __init__(self, method: str, path: str, status: int, text: str) -> None:
        super().__init__(method, path, status, text)
        self.method, self.path, self.status, self.text = method, path, status, text

    @property
    def is_locked(self) -> bool:
        """Tell whether nothing was done because SQLite was locked: Airflow waits five seconds for that, at times for itself."""
        return self.status == 500 and "Database error" in self.text

    def __str__(self) -> str:
        return f"{self.method} {self.path} gave {self.status}: {self.text}"


class DagImportError(RuntimeError):
    """A DAG cannot be run because its file cannot be imported; the text is the import's traceback."""


class AirflowApi:
    """Ask a running Airflow: trigger a DAG, wait for it, read what it left.

    :param url: Where the API server listens, without a trailing slash.
    :param dags_folders: Where the DAG files are, to tell whose import error stands in a DAG's way.
    """

    def __init__(self, url: str, *, user: str, password: str, dags_folders: Sequence[Path] = ()) -> None:
        self.url, self.user, self.password = url, user, password
        self.dags_folders = [folder.absolute() for folder in dags_folders]
        self._token: str | None = None
        self._opener = build_opener(ProxyHandler({}))  # Airflow is on this machine, whatever the proxy

    # Requests

    def get(self, path: str, **query: Any) -> Any:
        """Give the JSON of ``/api/v2`` + ``path``."""
        return self._call("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Any) -> Any:
        """Send ``body`` as JSON and give the answer's JSON."""
        return self._call("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """Send ``body`` as JSON and give the answer's JSON."""
        return self._call("PATCH", path, body)

    def health(self) -> dict[str, str | None]:
        """Give each component's health: ``healthy``, ``unhealthy``, or None where it never started."""
        with self._open("GET", "/api/v2/monitor/health") as response:
            return {name: component["status"] for name, component in json.load(response).items()}

    # Runs

    def trigger(
        self,
        dag_id: str,
        *,
        conf: dict[str, Any] | None = None,
        run_id: str | None = None,
        timeout_seconds: float = 60,
    ) -> str:
        """Start a run of a DAG and give the run's id; the DAG is waited for and unpaused first.

        :param run_id: None: Airflow chooses.
        :raises DagImportError: its file cannot be imported.
        :raises TimeoutError: no DAG of that name appeared in time.
        """
        self.wait_until_parsed(dag_id, timeout_seconds=timeout_seconds)
        if self.get(f"/dags/{dag_id}")["is_paused"]:
            self.patch(f"/dags/{dag_id}", {"is_paused": False})
        wanted = {"logical_date": None, "conf": conf or {}} | ({"dag_run_id": run_id} if run_id else {})
        return str(self.post(f"/dags/{dag_id}/dagRuns", wanted)["dag_run_id"])

    def wait_until_parsed(self, dag_id: str, *, timeout_seconds: float = 60) -> None:
        """Return when the DAG processor has stored the DAG; raises like :meth:`trigger`."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            self.check()
            dag = self._find_dag(dag_id)
            if dag and not dag["has_import_errors"]:
                return
            errors = self.get("/importErrors")["import_errors"]
            late = time.monotonic() > deadline
            traces = [error["stack_trace"] for error in errors if late or self._may_define(error["filename"], dag_id)]
            if traces:
                raise DagImportError(f"No DAG {dag_id!r}: a DAG file cannot be imported.\n" + "\n".join(traces))
            if late:
                found = ", ".join(sorted(dag["dag_id"] for dag in self.get("/dags")["dags"]))
                raise TimeoutError(f"No DAG {dag_id!r} after {timeout_seconds:.0f} s. Found: {found or 'none'}.")
            time.sleep(POLL_SECONDS)

    def wait(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout_seconds: float = 300,
        on_change: Callable[[TaskInstance], None] = lambda _: None,
    ) -> str:
        """Wait for the end of a run and give its state, ``success`` or ``failed``.

        :param on_change: Called with a task instance whenever its state or try has changed.
        :raises TimeoutError: with the state of each task.
        """
        deadline = time.monotonic() + timeout_seconds
        seen: dict[tuple[str, int], tuple[str | None, int]] = {}
        while True:
            self.check()
            # The run before its tasks: when it has ended, so have they.
            state: str = self.get(_run_path(dag_id, run_id))["state"]
            for task in self.task_instances(dag_id, run_id):
                key, now = (task["task_id"], task["map_index"]), (task["state"], task["try_number"])
                if now[0] is not None and seen.get(key) != now:
                    seen[key] = now
                    on_change(task)
            if state in FINISHED:
                return state
            if time.monotonic() > deadline:
                tasks = ", ".join(f"{name}[{index}] {at}" for (name, index), (at, _) in seen.items())
                raise TimeoutError(
                    f"Run {run_id!r} of {dag_id!r} is {state} after {timeout_seconds:.0f} s: "
                    f"{tasks or 'no task started'}."
                )
            time.sleep(POLL_SECONDS)

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Give every task instance of a run."""
        path, found = f"{_run_path(dag_id, run_id)}/taskInstances", list[TaskInstance]()
        while True:
            page = self.get(path, limit=100, offset=len(found))
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Give an XCom value as it is stored: JSON, not turned back into objects."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{quote(key, safe='')}"
        return self.get(path, map_index=map_index)["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, *, map_index: int = -1) -> str:
        """Give a task's log as text, one event a line, tracebacks included."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        content = self.get(path, map_index=map_index, full_content="true")["content"]
        return "\n".join(_log_line(event) for event in content)

    # The rest

    def check(self) -> None:
        """Raise if waiting is in vain. Called while waiting; a subclass knows its processes."""

    def _find_dag(self, dag_id: str) -> dict[str, Any] | None:
        try:
            dag: dict[str, Any] = self.get(f"/dags/{dag_id}")
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return dag

    def _may_define(self, filename: str, dag_id: str) -> bool:
        files = [folder / filename for folder in self.dags_folders]
        return any(dag_id in file.read_text(errors="replace") for file in files if file.is_file())

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        if self._token is None:
            login = {"username": self.user, "password": self.password}
            with self._open("POST", "/auth/token", login) as response:
                self._token = json.load(response)["access_token"]
        for _ in range(LOCKED_TRIES):
            try:
                with self._open(method, f"/api/v2{path}", body) as response:
                    return json.load(response)
            except ApiError as error:
                if not error.is_locked:
                    raise
                locked = error
        raise locked

    def _open(self, method: str, path: str, body: Any = None) -> HTTPResponse:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        try:
            response: HTTPResponse = self._opener.open(
                Request(self.url + path, data=data, headers=headers, method=method), timeout=ANSWER_SECONDS
            )
        except HTTPError as error:
            raise ApiError(method, path, error.code, error.read().decode(errors="replace")) from error
        return response


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _log_line(event: str | dict[str, Any]) -> str:
    if isinstance(event, str):
        return event
    lines = [str(event.get("event", ""))]
    for error in event.get("error_detail") or ():
        lines += [f"  {frame['filename']}:{frame['lineno']} in {frame['name']}" for frame in error["frames"]]
        lines.append(f"{error['exc_type']}: {error['exc_value']}")
    return "\n".join(lines)
