"""What became of a plan, as a page for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from airflow_aml_data.core.catalog import Plan, PlanEntry
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.transfer import readable_bytes

REPORTS_FOLDER = "retention_reports"
"""On the workspace's default datastore."""

_AGES = (1, 7, 14, 30, 60, 90)
_BAR_WIDTH = 420
_SHOWN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What of a plan belongs to one DAG on one datastore."""

    dag_id: str
    datastore: str
    outputs: int
    size_bytes: int
    deleted_files: int
    freed_bytes: int


def totals(entries: Iterable[PlanEntry]) -> list[Total]:
    """By DAG and datastore, the most bytes first."""
    by_owner: dict[tuple[str, str], list[PlanEntry]] = defaultdict(list)
    for each in entries:
        by_owner[each.dag_id, each.datastore].append(each)
    found = [
        Total(
            dag_id=dag_id,
            datastore=datastore,
            outputs=len(theirs),
            size_bytes=sum(each.size_bytes for each in theirs),
            deleted_files=sum(each.deleted_files for each in theirs),
            freed_bytes=sum(each.freed_bytes for each in theirs),
        )
        for (dag_id, datastore), theirs in by_owner.items()
    ]
    return sorted(found, key=lambda each: (-each.size_bytes, each.dag_id, each.datastore))


def store_report(workspace: ConnectedWorkspace, plan: Plan, entries: Sequence[PlanEntry]) -> str:
    """Write the page of a plan into the workspace's default datastore, and return its path there.

    It has no parts elsewhere: whoever has the file can open it. A page that is there already is replaced.
    """
    catalog = workspace.catalog
    ages = catalog.bytes_by_age(sorted({each.datastore for each in entries}), _AGES)
    path = f"{REPORTS_FOLDER}/plan_{plan.id:06}.html"
    workspace.storage(None).write_bytes(path, report_page(plan, entries, ages, catalog.now()).encode())
    return path


def report_page(plan: Plan, entries: Sequence[PlanEntry], ages: Sequence[int], now: datetime) -> str:
    """The page as HTML.

    :param ages: Bytes of committed outputs that are there now, by days since their last change: up to 1, 7, 14, 30, 60, 90, and more.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only where a page is made

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "bytes": readable_bytes,
        "moment": lambda moment: f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
    }
    page = environment.get_template("report.html")
    return page.render(
        plan=plan, entries=entries, totals=totals(entries), bars=_bars(ages, _gone_by_age(entries, now)), limit=_SHOWN
    )


def _gone_by_age(entries: Iterable[PlanEntry], now: datetime) -> list[int]:
    gone = [0] * (len(_AGES) + 1)
    for each in entries:
        days = (now - each.changed_at).total_seconds() / 86400 if each.changed_at else 0
        gone[sum(days > edge for edge in _AGES)] += each.freed_bytes
    return gone


def _bars(stays: Sequence[int], gone: Sequence[int]) -> list[Mapping[str, Any]]:
    most = max(1, *(there + away for there, away in zip(stays, gone, strict=True)))
    labels = [
        "up to 1 day",
        *(f"{low + 1} to {high} days" for low, high in pairwise(_AGES)),
        f"over {_AGES[-1]} days",
    ]
    return [
        {
            "label": label,
            "stays": there,
            "gone": away,
            "stays_width": round(_BAR_WIDTH * there / most, 1),
            "gone_width": round(_BAR_WIDTH * away / most, 1),
        }
        for label, there, away in zip(labels, stays, gone, strict=True)
    ]
