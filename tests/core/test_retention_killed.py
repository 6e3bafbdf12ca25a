"""A sweep that is killed, at any moment: who resumes it finds catalog and store agreeing, and nothing else is gone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_aml_data.core import connections
from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.retention import sweep
from airflow_aml_data.core.retention.plan import RetentionScope, make_plan
from airflow_aml_data.core.retention.sweep import sweep_plan
from tests.azurite import Azurite
from tests.core.steps import Steps, start_child
from tests.storage.stores import blob_store, content, names, put, with_key

KILLS = 50
OUTPUTS = 12
STORE = "workspaceblobstore"


CONTAINER = "killed"
LONGEST_SECONDS = 0.2
"""Until a sweep on Azurite is killed; it needs longer for all."""


def nobody(runs):
    return set()


@pytest.mark.slow
def test_a_sweep_killed_at_any_moment_is_resumed(steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "airflow_home"
    references = [steps.write("a.txt", "b.txt", run_id=f"r{number}") for number in range(OUTPUTS)]
    kept, due = references[:3], references[3:]
    url = steps.connected.config.catalog_connection_string
    catalog = Catalog(url, now=lambda: datetime.now(UTC) + timedelta(days=31))
    monkeypatch.setattr(ConnectedWorkspace, "catalog", property(lambda _: catalog))
    monkeypatch.setattr(sweep, "_OUTPUTS", 2)
    for each in kept:
        catalog.pin_output(each.output_id, by="ann", reason="")
    made = make_plan(steps.connected, RetentionScope(datastores=(STORE,), maximum_share=1), nobody, by="a test")
    catalog.decide_plan(made.id, approved=True, by="ann")
    untouched = {
        path: text for path, text in steps.stored().items() if any(path.startswith(each.path) for each in kept)
    }
    shutil.copytree(home, tmp_path / "before")
    started = time.monotonic()
    sweep_plan(steps.connected, made.id, nobody)
    whole = time.monotonic() - started
    shuffle, reached = random.Random(5), Counter[str]()

    for _ in range(KILLS):
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "before", home)
        child = os.fork()
        if not child:
            sweep_plan(steps.connected, made.id, nobody)
            os._exit(0)
        time.sleep(whole * shuffle.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        states = Counter(each.state for each in catalog.plan_entries(made.id))
        reached["in the middle" if len(states) > 1 or "deleting" in states else next(iter(states))] += 1

        done = sweep_plan(steps.connected, made.id, nobody)

        assert steps.stored() == untouched
        assert (done.state, done.deleted_files, done.freed_bytes) == ("ended", done.files, done.size_bytes)
        assert {each.id for each in catalog.find_outputs(state="deleted")} == {each.output_id for each in due}
        told = [each.output_id for each in catalog.history(limit=1000) if each.event == "deleted"]
        assert sorted(told) == sorted(each.output_id for each in due)
    print(f"killed: {dict(reached)}")
    assert reached["in the middle"] > KILLS / 4


@pytest.fixture
def on_azurite(steps: Steps, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Steps in a workspace whose default datastore is an empty container."""
    azurite.create_container(CONTAINER)
    workspace = {
        "datastores": {"store": blob_store(CONTAINER, "my_store")},
        "catalog_connection_string": steps.connected.config.catalog_connection_string,
    }
    connection = ConnectionFields(conn_id="my_store", **with_key(azurite, azurite.url))
    monkeypatch.setattr(connections, "source", lambda _: workspace)
    monkeypatch.setattr(connections, "reader", {"my_store": connection}.__getitem__)
    return steps


@pytest.mark.slow
def test_so_is_one_on_azure(on_azurite: Steps, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sweep, killed again and again. What it has sent when it is killed the server carries out still."""
    steps = on_azurite
    references = [steps.write("a.txt", "b.txt", run_id=f"r{number}") for number in range(2 * OUTPUTS)]
    kept, due = references[:2], references[2:]
    url = steps.connected.config.catalog_connection_string
    catalog = Catalog(url, now=lambda: datetime.now(UTC) + timedelta(days=31))
    monkeypatch.setattr(ConnectedWorkspace, "catalog", property(lambda _: catalog))
    monkeypatch.setattr(sweep, "_OUTPUTS", 1)
    for each in kept:
        catalog.pin_output(each.output_id, by="ann", reason="")
    made = make_plan(steps.connected, RetentionScope(datastores=("store",), maximum_share=1), nobody, by="a test")
    catalog.decide_plan(made.id, approved=True, by="ann")
    put(azurite, CONTAINER, {f"{each.path}/mine.txt": b"put there by hand" for each in due})
    put(azurite, CONTAINER, {f"{due[0].path}/b.txt": b"new B.txt"})
    stays = {f"{each.path}/mine.txt" for each in due} | {f"{due[0].path}/b.txt"}
    stays |= {path for each in kept for path in names(azurite, CONTAINER, each.path)}
    untouched = {path: text for path, text in content(azurite, CONTAINER).items() if path in stays}
    paths = {each.output_id: {f"{each.path}/a.txt", f"{each.path}/b.txt"} for each in due}
    shuffle, kills = random.Random(5), 0

    while {each.state for each in catalog.plan_entries(made.id)} & {"planned", "deleting"}:
        child = start_child(lambda: sweep_plan(steps.connected, made.id, nobody))
        time.sleep(LONGEST_SECONDS * shuffle.random())
        os.kill(child, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        entries, there = catalog.plan_entries(made.id), set(names(azurite, CONTAINER))
        assert stays <= there
        for each in entries:
            if each.state == "planned":
                assert paths[each.output_id] <= there
            elif each.state == "deleted":
                assert paths[each.output_id] & there <= stays

    done = sweep_plan(steps.connected, made.id, nobody)
    manifests = {each.manifest_path for each in catalog.find_outputs(state="committed")}
    found = content(azurite, CONTAINER)
    assert {path: text for path, text in found.items() if path not in manifests} == untouched
    assert (done.state, done.deleted_files) == ("ended", done.files - 1)
    assert {each.id for each in catalog.find_outputs(state="deleted")} == {each.output_id for each in due}
    print(f"killed {kills} times")
    assert kills > OUTPUTS / 2
