"""What the steps of one DAG run report to its run: each keeps its part with its run files, later steps read them."""

from __future__ import annotations

from airflow_aml_data.core.catalog import Output
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.records import PARENT_FILE, Record, parse
from airflow_aml_data.core.run_files import RUN_FILES

_MOST_OUTPUTS = 10_000


def find(workspace: ConnectedWorkspace, dag_id: str, run_id: str) -> list[Record]:
    """What the steps of a DAG run that have succeeded reported to it, in the order in which they ended.

    Of a step that was run again, only the last time counts.
    """
    outputs = workspace.catalog.find_outputs(dag_id=dag_id, run_id=run_id, state="committed", limit=_MOST_OUTPUTS)
    newest: dict[tuple[str, int], Output] = {}
    for each in outputs:  # newest first
        if each.name == RUN_FILES:
            newest.setdefault((each.task_id, each.map_index), each)
    found: list[Record] = []
    for each in reversed(newest.values()):
        storage = workspace.storage(each.datastore)
        if any(storage.list_files(f"{each.path}/{PARENT_FILE}")):
            found += parse(storage.read_bytes(f"{each.path}/{PARENT_FILE}"))
    return found
