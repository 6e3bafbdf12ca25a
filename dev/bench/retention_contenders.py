"""What the bench of retention runs, each in a process of its own: ``retention_contenders.py WHAT`` with what it needs as JSON in the
environment. The first line it prints says what importing took that every task has imported, and does not count.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Set
from pathlib import Path
from typing import Any

VARIABLE = "BENCH_RETENTION"
STORE = "workspaceblobstore"


def connected(told: dict[str, Any]) -> Any:
    """The workspace of the bench: its catalog, and its datastore."""
    from dataclasses import replace

    from airflow_aml_data.core.configuration import WorkspaceConfig
    from airflow_aml_data.core.connect import ConnectedWorkspace
    from airflow_aml_data.core.connections import ConnectionFields

    content = {"datastores": {STORE: told["store"]}, "catalog_connection_string": told["catalog"]}
    config = WorkspaceConfig.from_mapping("azureml_default", content, Path(told["home"]))
    fields = ConnectionFields(
        conn_id="bench", conn_type="wasb", extra={"connection_string": told.get("connection_string", "")}
    )
    return ConnectedWorkspace(replace(config, connections={"bench": fields}))


def plan(told: dict[str, Any]) -> None:
    from airflow_aml_data.core.retention.plan import RetentionScope, make_plan

    workspace = connected(told)
    scope = RetentionScope(datastores=(STORE,), maximum_share=told.get("maximum_share", 0.5))
    made = make_plan(workspace, scope, _nobody, by="bench")
    if told.get("approve"):
        workspace.catalog.decide_plan(made.id, approved=True, by="bench")
    print(json.dumps({"plan": made.id, "outputs": made.outputs, "files": made.files, "kept": dict(made.kept)}))


def read(told: dict[str, Any]) -> None:
    """The least that planning takes: read every output."""
    from sqlalchemy import create_engine, text

    count = 0
    with create_engine(told["catalog"].replace("postgresql:", "postgresql+psycopg2:")).connect() as connection:
        query = connection.execution_options(yield_per=5000).execute(text("SELECT * FROM aml_outputs"))
        for _ in query:
            count += 1
    print(json.dumps({"outputs": count}))


def reconcile(told: dict[str, Any]) -> None:
    from airflow_aml_data.core.retention.reconcile import reconcile as compare

    found = compare(connected(told), STORE, maximum_share=1)
    print(json.dumps({"files": found.files, "unknown": len(found.unknown), "missing": len(found.missing)}))


def wasb_list(told: dict[str, Any]) -> None:
    from airflow.providers.microsoft.azure.hooks.wasb import WasbHook

    found = WasbHook("bench").get_blobs_list_recursive(told["store"]["container_name"])
    print(json.dumps({"files": len(found)}))


def wasb_delete(told: dict[str, Any]) -> None:
    from airflow.providers.microsoft.azure.hooks.wasb import WasbHook

    WasbHook("bench").delete_file(told["store"]["container_name"], "dataset/", is_prefix=True)
    print(json.dumps({}))


def sweep(told: dict[str, Any]) -> None:
    from airflow_aml_data.core.retention.sweep import sweep_plan

    done = sweep_plan(connected(told), told["plan"], _nobody)
    print(json.dumps({"state": done.state, "files": done.deleted_files, "freed_bytes": done.freed_bytes}))


def _nobody(runs: Set[tuple[str, str]]) -> Set[tuple[str, str]]:
    """No run of Airflow's is open."""
    return set()


def main() -> None:
    from dev.bench.transfer_contenders import import_before_the_clock

    import_before_the_clock(
        "airflow.sdk", "asyncio", "httpcore", "httpx", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql"
    )
    told = json.loads(os.environ[VARIABLE])
    globals()[sys.argv[1]](told)


if __name__ == "__main__":
    main()
