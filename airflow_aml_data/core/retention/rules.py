"""Which outputs may go: rules over rows of the catalog and a clock, and nothing else.

The 30 days are the article's: pipelines count on data for so long. Nobody may read an output again that this module lets go:
reuse and every read move its last use, and a run that can still be cleared has used its inputs within those days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_aml_data.core.catalog.records import Candidate, Output
from airflow_aml_data.core.identity import FLOOR_DAYS, check_retention_days
from airflow_aml_data.errors import InvalidDeclaration

ABANDONED_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long data is kept.

    :param retention_days: Days after an output's last change and its last use; its own declaration goes first, then its datastore's.
    :param datastore_days: The same for single datastores, by name; those that the workspace's connection sets are added to a plan's.
    :param abandoned_days: Days after an attempt that failed or was given up began.
    :param allow_early_deletion: Why committed data may go before 30 days have passed; goes into the history.
    :raises InvalidDeclaration: for a period that is too short.
    """

    retention_days: int = FLOOR_DAYS
    datastore_days: Mapping[str, int] = field(default_factory=dict)
    abandoned_days: int = ABANDONED_DAYS
    allow_early_deletion: str = ""

    def __post_init__(self) -> None:
        for what, days in (
            ("retention_days", self.retention_days),
            *((f"retention_days of datastore {name!r}", days) for name, days in self.datastore_days.items()),
        ):
            check_retention_days(what, days, reason=self.allow_early_deletion)
        if self.abandoned_days < 1:
            raise InvalidDeclaration(f"abandoned_days is {self.abandoned_days}. Allowed: 1 and more.")

    @property
    def shortest_days(self) -> int:
        """No output that is whole goes sooner after its last change and use."""
        return min(FLOOR_DAYS, self.retention_days, *self.datastore_days.values())


def why_kept(output: Candidate, policy: RetentionPolicy, now: datetime, *, registered: str) -> str:
    """A few words on why an output stays; empty when it may go.

    :param registered: A dataset that reads it; empty when none does.
    """
    if why := _why_needed(output, registered):
        return why
    if (due := due_at(output, policy)) > now:
        return f"due on {due:%Y-%m-%d}"
    return ""


def why_kept_after_its_run(output: Candidate, *, registered: str) -> str:
    """The same for an output whose DAG run has it cleaned up at its end, whatever its age."""
    if why := _why_needed(output, registered):
        return why
    if output.used_elsewhere:
        return "read by another run"
    if output.retention_days:
        return f"declared to be kept for {output.retention_days} days"
    return ""


def _why_needed(output: Candidate, registered: str) -> str:
    if output.pin:
        return f"pinned by {output.pin}"
    if registered:
        return f"registered as {registered}"
    if output.lease:
        return f"in use by {output.lease}"
    return ""


def why_deleted(output: Candidate, now: datetime) -> str:
    """A few words for the plan on an output that may go."""
    if output.changed_at is None:
        return f"abandoned for {_days(now - output.created_at)}"
    if output.state == "unknown":
        return f"no step accounts for it; unchanged for {_days(now - output.changed_at)}"
    used = "never read" if output.used_at is None else f"unused for {_days(now - output.used_at)}"
    return f"unchanged for {_days(now - output.changed_at)}, {used}"


def due_at(output: Candidate | Output, policy: RetentionPolicy) -> datetime:
    """When an output may go, if nothing else keeps it."""
    if output.changed_at is None:
        return output.created_at + timedelta(days=policy.abandoned_days)
    days = output.retention_days or policy.datastore_days.get(output.datastore, policy.retention_days)
    return max(output.changed_at, output.used_at or output.changed_at) + timedelta(days=days)


def _days(passed: timedelta) -> str:
    return f"{passed.days} day" + ("s" if passed.days != 1 else "")
