"""``airflow aml-data``: run by Airflow's own parser, on real outputs."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from airflow.cli import cli_parser
from airflow.models import Connection
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import delete, event

from airflow_aml_data import cli_commands
from airflow_aml_data.cli import STATES
from airflow_aml_data.core.catalog import OutputState
from airflow_aml_data.core.storage.local import LocalStorage
from tests.core.steps import Steps
from tests.skin.conftest import Said
from tests.test_imports import loaded

STORE = "workspaceblobstore"
ME = f"{getpass.getuser()}@{socket.gethostname()} (command line)"


@pytest.fixture
def dag_runs() -> Iterator[Callable[..., None]]:
    """Make runs of DAG ``dag`` that Airflow knows, in a state; gone after the test."""

    def make(state: str, *run_ids: str) -> None:
        with create_session() as session:
            for each in run_ids:
                run = DagRun(dag_id="dag", run_id=each, run_type="manual", run_after=datetime.now(UTC), state=state)
                session.add(run)

    yield make
    with create_session() as session:
        session.execute(delete(DagRun).where(DagRun.dag_id == "dag"))


def plan_all(aml_data: Callable[..., Said], *more: str) -> dict[str, Any]:
    """Plan to delete everything that is due."""
    return aml_data("plan", "--datastore", STORE, "--maximum-share", "1", *more, "--output", "json").json


def test_the_parser_loads_nothing_and_knows_every_state():
    assert (
        loaded("import airflow_aml_data.cli", "airflow", "sqlalchemy", "rich", "airflow_aml_data.cli_commands") == set()
    )
    assert get_args(OutputState) == STATES


@pytest.mark.parametrize("command", ["outputs", "plan", "sweep", "history", "pin", "unpin"])
def test_help_says_what_a_command_does(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli_parser.get_parser().parse_args(["aml-data", command, "--help"])
    assert ended.value.code == 0
    assert "--conn-id" in capsys.readouterr().out


def test_outputs_as_a_table_has_one_line_each(old, aml_data):
    said = aml_data("outputs")
    header, *rows = said.out.splitlines()
    assert header.split()[:4] == ["output", "dag", "run", "step"]
    assert len(rows) == 2
    newest = old.connected.catalog.find_outputs()[0]
    for text in (newest.id, f"{STORE}:{newest.path}", "committed", "step", "9 B", "31"):
        assert text in rows[0]
    assert said.err == ""


def test_outputs_as_json_has_numbers_and_iso_dates(old, aml_data):
    old.connected.catalog.pin_output(old.connected.catalog.find_outputs()[0].id, by="ann", reason="[b]audit[/b] :cat:")
    pinned, due = aml_data("outputs", "--output", "json").json
    known = old.connected.catalog.find_outputs()[0]
    assert (pinned["id"], pinned["datastore"], pinned["path"]) == (known.id, known.datastore, known.path)
    assert (pinned["files"], pinned["size_bytes"], pinned["age_days"]) == (1, 9, 31)
    assert datetime.fromisoformat(pinned["changed_at"]) == known.changed_at
    assert (pinned["pin"], pinned["due_at"]) == ("ann: [b]audit[/b] :cat:", None)
    assert datetime.fromisoformat(due["due_at"]) < datetime.now(UTC)
    assert "ann: [b]audit[/b] :cat:" in aml_data("outputs").out


def test_outputs_are_chosen_and_counted(old, aml_data):
    assert [each["run_id"] for each in aml_data("outputs", "--run-id", "r1", "-o", "json").json] == ["r1"]
    assert aml_data("outputs", "--dag-id", "other", "-o", "json").json == []
    assert aml_data("outputs", "--state", "deleted").err == "Nothing found.\n"
    assert len(aml_data("outputs", "--datastore", STORE.upper(), "--task-id", "step").rows) == 2
    said = aml_data("outputs", "--limit", "1")
    assert len(said.rows) == 1
    assert said.err == "There are more: --limit shows them.\n"
    with pytest.raises(SystemExit, match="Datastore 'nowhere' does not exist"):
        aml_data("outputs", "--datastore", "nowhere")


@pytest.mark.slow
def test_a_plan_is_made_shown_and_listed_and_deletes_nothing(old, aml_data):
    said = aml_data("plan", "--datastore", STORE, "--maximum-share", "1")
    assert f"by {ME}" in said.out
    assert said.out.count("unchanged for 31 days, never read") == 2
    assert "airflow aml-data sweep 1" in said.err
    assert len(old.stored()) == 2

    shown = aml_data("plan", "1", "-o", "json").json
    assert (shown["id"], shown["state"], shown["outputs"], shown["created_by"]) == (1, "planned", 2, ME)
    assert [each["state"] for each in shown["entries"]] == ["planned", "planned"]
    assert aml_data("plan", "1").out == said.out
    (listed,) = aml_data("plan", "-o", "json").json
    assert {**listed, "entries": shown["entries"]} == shown
    assert aml_data("plan").rows[0].split()[:2] == ["1", "planned"]


def test_a_plan_says_what_stays(old, aml_data):
    old.connected.catalog.pin_output(old.connected.catalog.find_outputs()[0].id, by="ann", reason="audit")
    said = aml_data("plan", "--datastore", STORE, "--maximum-share", "1")
    assert "Stay: 1 outputs, 9 B: pinned by ann: audit." in said.out


def test_a_plan_that_is_too_large_ends_in_an_error(old, aml_data, capsys):
    with pytest.raises(SystemExit, match=r"Plan 1 would delete more than 0\.5 of a datastore's bytes.*--maximum-share"):
        aml_data("plan", "--datastore", STORE)
    with pytest.raises(SystemExit, match=r"Plan 1 is stopped\. Needed: planned or approved"):
        aml_data("sweep", "1", "--approve")
    assert len(old.stored()) == 2


def test_nothing_due_is_no_error(steps, aml_data):
    steps.write("a.txt")
    said = aml_data("plan", "--datastore", STORE)
    assert said.err == "Nothing is due.\n"
    assert plan_all(aml_data)["entries"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "7"], "There is no plan 7."),
        (["plan", "7", "--datastore", STORE], "Either a number, to show a plan, or .* to make one"),
        (["plan", "--retention-days", "40"], "No datastore is named"),
        (["plan", "--datastore", STORE, "--retention-days", "3"], "retention_days is 3. Allowed: 30 and more"),
        (["sweep", "7"], "There is no plan 7."),
        (["pin", "nobody", "--reason", "x"], "nobody"),
        (["unpin", "nobody"], "Output 'nobody' is not in the catalog"),
        (["outputs", "--conn-id", "nobody"], "There is no Airflow connection 'nobody'"),
    ],
)
def test_an_error_is_a_message_and_no_traceback(steps, aml_data, arguments, message):
    with pytest.raises(SystemExit, match=message) as ended:
        aml_data(*arguments)
    assert isinstance(ended.value.code, str)  # Python prints it to stderr, and exits with 1
    assert "\n" not in ended.value.code


def test_a_reason_allows_an_early_plan(old, aml_data):
    planned = plan_all(aml_data, "--retention-days", "3", "--allow-early-deletion", "the disk is full")
    assert planned["settings"]["policy"]["allow_early_deletion"] == "the disk is full"
    assert planned["settings"]["policy"]["retention_days"] == 3


def test_a_sweep_without_approval_only_shows(old, aml_data):
    kept, gone = (each.id for each in old.connected.catalog.find_outputs())
    plan_all(aml_data)
    said = aml_data("sweep", "1", "--keep", kept)
    assert gone in said.out
    assert kept not in said.out
    assert "Would delete 1 outputs, 2 files" in said.err
    assert "--approve" in said.err
    assert len(old.stored()) == 2
    assert old.connected.catalog.get_plan(1).state == "planned"
    with pytest.raises(SystemExit, match="Plan 1 holds no output 'nobody'"):
        aml_data("sweep", "1", "--keep", "nobody")


def test_an_approved_sweep_deletes_and_says_who(old, aml_data):
    kept, gone = (each.id for each in old.connected.catalog.find_outputs())
    plan_all(aml_data)
    said = aml_data("sweep", "1", "--approve", "--keep", kept, "-o", "json")

    assert said.err == ""
    assert (said.json["state"], said.json["decided_by"], said.json["deleted_files"]) == ("ended", ME, 2)
    assert {each["output_id"]: each["state"] for each in said.json["entries"]} == {kept: "struck_out", gone: "deleted"}
    assert len(old.stored()) == 1
    told = aml_data("history", "--output-id", gone, "-o", "json").json
    assert told[0]["event"] == "deleted"
    assert f"approved by {ME}" in told[0]["detail"]
    with pytest.raises(SystemExit, match=r"Plan 1 is ended\. Needed: planned or approved"):
        aml_data("sweep", "1", "--approve")


def test_a_sweep_goes_on_with_what_somebody_else_approved(old, aml_data):
    kept, _ = (each.id for each in old.connected.catalog.find_outputs())
    plan_all(aml_data)
    old.connected.catalog.decide_plan(1, approved=True, by="ann")
    with pytest.raises(SystemExit, match="Plan 1 is approved"):
        aml_data("sweep", "1", "--approve", "--keep", kept)
    assert "approved" in aml_data("sweep", "1").out
    said = aml_data("sweep", "1", "--approve")
    assert "Approved by ann." in said.out
    assert old.stored() == {}


def test_a_sweep_that_is_interrupted_goes_on_when_it_is_repeated(old, aml_data, monkeypatch):
    kept, _ = (each.id for each in old.connected.catalog.find_outputs())
    plan_all(aml_data)
    with (
        monkeypatch.context() as patch,
        pytest.raises(SystemExit, match="Cut off"),
    ):
        patch.setattr(
            LocalStorage, "delete_unchanged", lambda *_: signal.raise_signal(signal.SIGINT)
        )  # as from the keyboard
        aml_data("sweep", "1", "--approve", "--keep", kept)
    assert len(old.stored()) == 2
    swept = aml_data("sweep", "1", "--approve", "--keep", kept, "-o", "json").json
    assert (swept["state"], swept["deleted_files"]) == ("ended", 2)
    assert len(old.stored()) == 1


def test_outputs_of_runs_that_have_not_ended_stay(old, aml_data, dag_runs):
    dag_runs("queued", "r1")
    dag_runs("success", "r2")
    planned = plan_all(aml_data)
    assert [each["run_id"] for each in planned["entries"]] == ["r2"]
    assert list(planned["kept"]) == ["its run has not ended"]

    dag_runs("running", "r3")
    with create_session() as session:
        session.execute(delete(DagRun).where(DagRun.run_id == "r2"))
    dag_runs("running", "r2")  # somebody cleared it after the plan was made
    swept = aml_data("sweep", "1", "--approve", "-o", "json").json
    assert [(each["state"], each["detail"]) for each in swept["entries"]] == [("skipped", "its run has not ended")]
    assert len(old.stored()) == 2


def test_open_runs_are_asked_for_in_few_queries(dag_runs):
    dag_runs("running", *(f"r{number}" for number in range(0, 700, 2)))
    dag_runs("failed", *(f"r{number}" for number in range(1, 700, 2)))
    asked: list[str] = []
    with create_session() as session:
        engine = session.get_bind()

    def count(*call: Any) -> None:
        asked.append(call[2])

    event.listen(engine, "before_cursor_execute", count)
    found = cli_commands.open_runs({("dag", f"r{number}") for number in range(700)} | {("other", "r0")})
    event.remove(engine, "before_cursor_execute", count)
    assert found == {("dag", f"r{number}") for number in range(0, 700, 2)}
    assert len(asked) == 3


@pytest.mark.slow
def test_a_pin_is_kept_and_taken_back(old, aml_data):
    output_id = old.connected.catalog.find_outputs()[0].id
    said = aml_data("pin", output_id, "--reason", "for the audit")
    assert said.out == f"Output {output_id!r} stays, whatever its age: pinned by {ME}: for the audit.\n"
    assert len(plan_all(aml_data)["entries"]) == 1
    assert aml_data("unpin", output_id, "-o", "json").json["pin"] is None
    assert len(plan_all(aml_data)["entries"]) == 2
    told = aml_data("history", "--output-id", output_id, "--limit", "2").rows
    assert [each.split()[2] for each in told] == ["unpinned", "pinned"]


def test_the_history_of_a_dataset(steps, aml_data):
    steps.write("a.txt").as_dataset().register(steps.workspace, "kept")
    (entry,) = aml_data("history", "--dataset", "kept", "-o", "json").json
    assert (entry["event"], entry["version"]) == ("registered", 1)
    assert "kept:1" in aml_data("history", "--dataset", "kept").out


@pytest.mark.slow
def test_a_workspace_in_airflows_database_is_found(workspace, tmp_path, aml_data):
    """Outside tasks, Airflow reads only the environment unless it is told that this is no task."""
    with create_session() as session:
        extra = {
            "datastores": {"elsewhere": {"kind": "local", "root": str(tmp_path / "elsewhere")}},
            "catalog_connection_string": f"sqlite:///{tmp_path}/team.db",
        }
        session.add(Connection(conn_id="team", conn_type="azureml", extra=json.dumps(extra)))
    try:
        said = aml_data("outputs", "--conn-id", "team", "--datastore", "elsewhere")
        assert said.err == "Nothing found.\n"
        assert (tmp_path / "team.db").exists()
    finally:
        with create_session() as session:
            session.execute(delete(Connection).where(Connection.conn_id == "team"))


def test_a_catalog_that_does_not_answer_is_one_line_without_its_password(workspace, monkeypatch, aml_data):
    extra = {"catalog_connection_string": "postgresql://me:hunter2@127.0.0.1:1/none"}
    monkeypatch.setenv("AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps({"conn_type": "azureml", "extra": extra}))
    with pytest.raises(SystemExit, match=r"127\.0\.0\.1") as ended:
        aml_data("history")
    assert "hunter2" not in str(ended.value.code)


def in_a_process(steps: Steps, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """``airflow aml-data`` as a shell runs it: Airflow's home is the tests', the workspace a connection in the environment."""
    config = steps.connected.config
    extra = {
        "datastores": {STORE: {"kind": "local", "root": str(steps.root)}},
        "catalog_connection_string": config.catalog_connection_string,
    }
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).parent),
        "AIRFLOW_CONN_AZUREML_DEFAULT": json.dumps({"conn_type": "azureml", "extra": extra}),
    }
    environment.pop("_AIRFLOW_PROCESS_CONTEXT", None)
    command = [Path(sys.executable).with_name("airflow"), "aml-data", *arguments]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)


@pytest.mark.slow
def test_a_shell_gets_json_on_stdout_and_errors_as_one_line_on_stderr(old):
    done = in_a_process(old, "outputs", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2

    failed = in_a_process(old, "sweep", "7", "--approve", "--output", "json")
    assert (failed.returncode, failed.stdout, failed.stderr.splitlines()[-1]) == (1, "", "There is no plan 7.")
    assert "Traceback" not in failed.stderr

    stopped = in_a_process(old, "plan", "--datastore", STORE, "-o", "json")
    assert stopped.returncode == 1
    assert json.loads(stopped.stdout)["state"] == "stopped"
    assert "Plan 1 would delete more than 0.5" in stopped.stderr.splitlines()[-1]


@pytest.mark.slow
def test_progress_is_for_terminals_and_not_among_the_json(old, aml_data):
    plan_all(aml_data)
    terminal, stderr = os.openpty()
    done = in_a_process(old, "sweep", "1", "--approve", "-o", "json", stderr=stderr)
    os.close(stderr)
    assert json.loads(done.stdout)["state"] == "ended"
    assert "outputs, 236 B" in os.read(terminal, 100_000).decode()
    os.close(terminal)
