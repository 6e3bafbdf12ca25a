"""What a step is at its beginning and leaves at its end, wherever its script ran."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_aml_data.core import records
from airflow_aml_data.core.definition import Definition, WebPath
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import StepPlan
from airflow_aml_data.core.records import PARENT, Kind, Record
from airflow_aml_data.core.run_files import RUN_FILES
from airflow_aml_data.core.storage.web import shown
from airflow_aml_data.core.transfer import readable_bytes
from airflow_aml_data.errors import RunCanceled, StepFailed

log = logging.getLogger(__name__)

_SETTINGS: Mapping[str, Kind] = {"tags": "tag", "properties": "property"}


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step leaves.

    :param outputs: One reference for each output.
    :param metrics: What the script logged, as far as it fits into XCom.
    :param details: ``"tags"`` and ``"properties"`` the script set.
    """

    outputs: list[OutputReference]
    metrics: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)


def check_end(script: str, code: int, reported: Sequence[Record]) -> None:
    """Raise when the script ended badly, or said that its run did; what child runs say is no reason."""
    ends = [each for each in reported if each.run in ("", PARENT)]
    if any(each.kind == "canceled" for each in ends):
        raise RunCanceled(script)
    details = next((str(each.value) for each in reversed(ends) if each.kind == "failed"), None)
    if code != 0 or details is not None:
        raise StepFailed(script, code, details)


def metrics_for_xcom(reported: Sequence[Record]) -> dict[str, Any]:
    """The metrics that the task returns."""
    kept, left_out = records.fitting(records.metrics_of_step(reported))
    if left_out:
        log.warning(
            "More metrics than XCom should carry (%s): %s. They are not in the task's return value; all metrics are in "
            "%s of the output %r.",
            readable_bytes(records.XCOM_BYTES),
            ", ".join(left_out[:20]),
            records.ALL_METRICS_FILE,
            RUN_FILES,
        )
    return kept


def details_of(reported: Sequence[Record]) -> dict[str, Any]:
    """Tags and properties of the step's run and the pipeline's, where the script set any."""
    found = {
        key: {**records.settings_of(reported, kind, PARENT), **records.settings_of(reported, kind)}
        for key, kind in _SETTINGS.items()
    }
    return {key: value for key, value in found.items() if value}


def describe(plan: StepPlan) -> list[str]:
    """The lines a step's log begins with: what it is, and for each input and output a line that says where it lies."""
    return [
        f"Step run {plan.run.id}: {plan.title}",
        *(f"Reads {each.name!r} ({each.mode}): {_source(each.definition)}" for each in plan.inputs),
        *(f"Writes {each.name!r} ({each.mode}): {each.datastore}:{each.path}" for each in plan.outputs),
    ]


def _source(definition: Definition) -> str:
    if definition.made_of:
        return f"{definition.made_of.target.kind} files made of {_source(definition.made_of.table)}"
    where = ", ".join(
        shown(each.url) if isinstance(each, WebPath) else f"{each.datastore}:{each.path}" for each in definition.sources
    )
    return "{} version {}, {}".format(*definition.registered, where) if definition.registered else where
