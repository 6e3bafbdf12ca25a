"""Azure ML SDK v1 pipelines on Apache Airflow 3.

Importing the package imports nothing else: each public name is loaded when it is first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from airflow_aml_data.core import connections

__version__ = "0.1.0"

_PUBLIC = {
    "CommandStepOperator": "airflow_aml_data.operators.command",
    "DataPath": "airflow_aml_data.core.workspace",
    "DataType": "airflow_aml_data.core.formats",
    "Dataset": "airflow_aml_data.core.factory",
    "DatasetConsumptionConfig": "airflow_aml_data.core.inputs",
    "Datastore": "airflow_aml_data.core.workspace",
    "OutputFileDatasetConfig": "airflow_aml_data.outputs",
    "OutputReference": "airflow_aml_data.core.outputs",
    "OutputTabularDatasetConfig": "airflow_aml_data.outputs",
    "PromoteHeadersBehavior": "airflow_aml_data.core.formats",
    "PythonScriptStepOperator": "airflow_aml_data.operators.script",
    "Run": "airflow_aml_data.run",
    "RunConfiguration": "airflow_aml_data.operators.environments",
    "Workspace": "airflow_aml_data.core.workspace",
    "cleanup_intermediate_data": "airflow_aml_data.operators.cleanup",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'airflow_aml_data' has no attribute {name!r}; it has: {', '.join(_PUBLIC)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


def _from_airflow(conn_id: str) -> Mapping[str, Any] | None:
    from importlib.util import find_spec

    if find_spec("airflow") is None:  # a script's own environment
        return None
    from airflow_aml_data.hooks.workspace import find_configuration

    return find_configuration(conn_id)


def _connection_of_airflow(conn_id: str) -> connections.ConnectionFields:
    from importlib.util import find_spec

    if find_spec("airflow") is None:  # a script's own environment
        return connections.unreadable(conn_id)
    from airflow_aml_data.hooks.workspace import read_connection

    return read_connection(conn_id)


connections.source = _from_airflow
connections.reader = _connection_of_airflow
