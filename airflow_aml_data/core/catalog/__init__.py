"""The catalog: dataset versions, step outputs and their states, leases, and a history nothing rewrites."""

from __future__ import annotations

from airflow_aml_data.core.catalog.catalog import Catalog
from airflow_aml_data.core.catalog.records import (
    Candidate,
    Claim,
    CommittedOutput,
    DatasetVersion,
    FinishedDeletion,
    HistoryEntry,
    HistoryEvent,
    KnownOutput,
    NewDatasetVersion,
    NewOutput,
    Output,
    OutputMode,
    OutputState,
    Plan,
    PlanEntry,
    PlannedDeletion,
    PlannedFile,
    RegisteredDatastore,
    RegisteredPlace,
    UnknownFiles,
)

__all__ = [
    "Candidate",
    "Catalog",
    "Claim",
    "CommittedOutput",
    "DatasetVersion",
    "FinishedDeletion",
    "HistoryEntry",
    "HistoryEvent",
    "KnownOutput",
    "NewDatasetVersion",
    "NewOutput",
    "Output",
    "OutputMode",
    "OutputState",
    "Plan",
    "PlanEntry",
    "PlannedDeletion",
    "PlannedFile",
    "RegisteredDatastore",
    "RegisteredPlace",
    "UnknownFiles",
]
