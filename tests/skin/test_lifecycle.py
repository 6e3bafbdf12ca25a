"""``LifecyclePolicyOperator`` in real DAG runs, against a control plane that takes only what Azure publishes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_aml_data import Workspace
from airflow_aml_data.core.catalog import NewDatasetVersion
from tests.azure_management import AzureManagement, airflow_workspace
from tests.core.steps import Steps
from tests.core.test_lifecycle import ours, theirs
from tests.skin.conftest import FinishedRun, Said

DAG_FILE = """
from airflow.sdk import DAG
from airflow_aml_data.operators.lifecycle import LifecyclePolicyOperator

with DAG("lifecycle", params={{"days": 30, "folder": "dataset"}}, default_args={{"retries": 1, "retry_delay": 0}}):
    LifecyclePolicyOperator(task_id="rule", {arguments})
"""


@pytest.fixture
def write_rule(
    run_dag: Callable[..., FinishedRun], steps: Steps, management: AzureManagement, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., FinishedRun]:
    """Run the operator with the given arguments, in a workspace whose datastores ``main`` and ``scratch`` are in account ``first``."""
    for name, value in airflow_workspace().items():
        monkeypatch.setenv(name, value)
    return lambda conf=None, **arguments: run_dag(
        DAG_FILE.format(arguments=", ".join(f"{name}={value!r}" for name, value in arguments.items())), conf
    )


def test_a_rule_is_written_with_values_of_the_trigger_form_and_returned(write_rule, management):
    finished = write_rule(
        {"days": 45, "folder": "tmp"},
        datastore="scratch",
        days="{{ params.days }}",
        prefixes="{{ params.folder }}",
        is_dry_run="{{ params.days < 30 }}",
    )

    assert finished.state == "success"
    assert finished.xcom("rule") == ours("scratch", "tmp", days=45)
    assert management.policies["first"] == {"rules": [finished.xcom("rule")]}


def test_nothing_is_written_unless_it_is_asked_for(write_rule, management):
    assert write_rule(datastore="scratch").xcom("rule") == ours("scratch")
    assert management.policies["first"] is None


def test_rules_of_others_stay_and_are_warned_of_when_they_would_harm_something(
    write_rule: Callable[..., FinishedRun], management: AzureManagement, capfd: pytest.CaptureFixture[str]
) -> None:
    registered: Any = NewDatasetVersion(name="kept", definition={"datastore": "main", "path": "raw"})
    Workspace().connect().catalog.register_dataset(registered, create_new_version=True)
    management.policies["first"] = {"rules": [theirs("main/raw/"), theirs("logs/", name="harmless")]}

    assert write_rule(datastore="scratch", is_dry_run=False).state == "success"

    assert management.policies["first"]["rules"] == [
        theirs("main/raw/"),
        theirs("logs/", name="harmless"),
        ours("scratch"),
    ]
    said = capfd.readouterr().out
    assert "Lifecycle rule 'theirs' deletes files after 1 days, and among them are data of registered datasets" in said
    assert "'harmless'" not in said


def test_the_command_line_lists_harmful_rules_and_changes_nothing(
    steps: Steps,
    management: AzureManagement,
    monkeypatch: pytest.MonkeyPatch,
    aml_data: Callable[..., Said],
    capsys: Any,
) -> None:
    for name, value in airflow_workspace().items():
        monkeypatch.setenv(name, value)
    registered: Any = NewDatasetVersion(name="kept", definition={"datastore": "main", "path": "raw"})
    Workspace().connect().catalog.register_dataset(registered, create_new_version=True)
    rules = [theirs("main/raw/"), theirs("logs/", name="harmless")]
    management.policies["first"] = {"rules": rules}

    with pytest.raises(SystemExit, match="1"):
        aml_data("lint-lifecycle", "--datastore", "scratch", "--output", "json")

    (found,) = json.loads(capsys.readouterr().out)
    assert (found["rule"], found["action"], found["kind"]) == ("theirs", "delete", "registered")
    assert found["text"].startswith("Lifecycle rule 'theirs' deletes files after 1 days")
    assert management.policies["first"] == {"rules": rules}
    management.policies["first"] = {"rules": rules[1:]}
    assert aml_data("lint-lifecycle", "--datastore", "scratch", "--output", "json").json == []


@pytest.mark.parametrize(
    "arguments", [{"datastore": "main"}, {"datastore": "scratch", "days": 29}, {"datastore": "share"}]
)
def test_what_is_refused_fails_without_retries(write_rule, management, arguments):
    finished = write_rule(**arguments, is_dry_run=False)

    assert (finished.state, finished.tries["rule"]) == ("failed", 1)
    assert management.requests == []


def test_a_service_that_fails_follows_the_retries_of_the_task(write_rule, management):
    management.failures = [(500, {})] * 12

    assert write_rule(datastore="scratch", is_dry_run=False).tries["rule"] == 2
