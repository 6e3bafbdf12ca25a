"""The catalog: dataset versions, step outputs and their states, leases, and a history nothing rewrites."""

from __future__ import annotations

from airflow_aml_data.core.catalog.catalog import Catalog
from airflow_aml_data.core.catalog.records import (
    CommittedOutput,
    DatasetVersion,
    HistoryEntry,
    HistoryEvent,
    NewDatasetVersion,
    NewOutput,
    Output,
    OutputMode,
    OutputState,
    RegisteredDatastore,
)

__all__ = [
    "Catalog",
    "CommittedOutput",
    "DatasetVersion",
    "HistoryEntry",
    "HistoryEvent",
    "NewDatasetVersion",
    "NewOutput",
    "Output",
    "OutputMode",
    "OutputState",
    "RegisteredDatastore",
]
