"""What the tests run in processes of their own; kept apart so that those processes import little."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from threading import Barrier

from airflow_aml_data.core.catalog import Catalog, CommittedOutput, NewDatasetVersion, NewOutput
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.errors import DatasetNotFound, OutputInUse

_everyone: Barrier


def meet_at(barrier: Barrier) -> None:
    global _everyone
    _everyone = barrier


def commit_and_register(worker: int, url: str, rounds: int) -> list[int]:
    """Write, commit and register ``rounds`` outputs under one dataset name; return the versions given."""
    catalog = Catalog(url)
    _everyone.wait(60)
    versions = []
    for number in range(rounds):
        run = StepRun(dag_id="sales", run_id=f"r{number}", task_id="prepare", map_index=worker)
        output = NewOutput(name="prepared", datastore="lake", path=run.id, mode="upload")
        catalog.begin_outputs(run, [output], lease_seconds=60)
        committed = CommittedOutput(
            name="prepared",
            files=1,
            size_bytes=1,
            manifest_path="m",
            manifest_digest="d",
            changed_at=datetime.now(UTC),
        )
        new = NewDatasetVersion(name="sales", definition={}, output_id=f"{run.id}/prepared", producer=run)
        versions += [made.version for made in catalog.commit_outputs(run, [committed], [new])]
    return versions


def claim(worker: int, url: str, paths: list[str]) -> list[bool]:
    """Claim each path in turn, as a task of its own; return which claims were granted."""
    catalog = Catalog(url)
    catalog.check()
    granted = []
    for number, path in enumerate(paths):
        _everyone.wait(60)
        run = StepRun(dag_id="sales", run_id=f"r{number}", task_id=f"task{worker}")
        # Half of the processes want the folder, the others a folder inside it.
        place = path if worker % 2 else f"{path}/inside"
        output = NewOutput(name="prepared", datastore="lake", path=place, mode="upload")
        try:
            catalog.begin_outputs(run, [output], lease_seconds=60)
            granted.append(True)
        except OutputInUse:
            granted.append(False)
    return granted


def register_before_and_after_a_fork(worker: int, url: str) -> list[int]:
    """Return versions registered by this process, by its forked child, and by this process again."""
    catalog = Catalog(url)
    new = NewDatasetVersion(name=f"forked{worker}", definition={})
    before = catalog.register_dataset(new, create_new_version=True).version
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        made = catalog.register_dataset(new, create_new_version=True).version
        os.write(writer, str(made).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        in_child = int(answer.read())
    return [before, in_child, catalog.register_dataset(new, create_new_version=True).version]


def register_change_and_unregister(worker: int, url: str, rounds: int) -> None:
    """Register one name again and again, tag its latest version, and every third round give the name up."""
    catalog = Catalog(url)
    _everyone.wait(60)
    for number in range(rounds):
        catalog.register_dataset(NewDatasetVersion(name="sales", definition={}), create_new_version=True)
        with suppress(DatasetNotFound):  # another process has given the name up
            catalog.add_dataset_tags("sales", "latest", {f"{worker}.{number}": "x"})
            if number % 3 == 2:
                catalog.unregister_all_versions("sales")
