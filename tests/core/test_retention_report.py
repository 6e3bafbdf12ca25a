"""The page that says what became of a plan."""

from __future__ import annotations

import re
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from airflow_aml_data import OutputFileDatasetConfig
from airflow_aml_data.core.retention.plan import RetentionScope, make_plan
from airflow_aml_data.core.retention.report import report_page, store_report, totals
from airflow_aml_data.core.retention.sweep import sweep_plan
from tests.core.conftest import Calendar
from tests.core.steps import Steps
from tests.core.test_retention import STORE, nobody

pytestmark = pytest.mark.slow


def swept(steps: Steps) -> int:
    """A plan of all that is due, carried out, but for what the first step wrote."""
    catalog = steps.connected.catalog
    plan = make_plan(steps.connected, RetentionScope(datastores=(STORE,), maximum_share=1), nobody, by="a test")
    struck_out = [each.output_id for each in catalog.plan_entries(plan.id) if each.task_id == "first"]
    catalog.decide_plan(plan.id, approved=True, by="<b>ann</b>", keep=struck_out)
    sweep_plan(steps.connected, plan.id, nobody)
    return plan.id


def test_the_page_tells_what_went_what_stays_and_why(steps: Steps, calendar: Calendar) -> None:
    steps.write("a.txt", task_id="first")
    steps.write("b.txt", "c.txt", task_id="second")
    steps.write("d.txt", task_id="pinned", output=OutputFileDatasetConfig("out", keep=True).as_upload())
    calendar.days = 31
    steps.write("e.txt", task_id="new")
    number = swept(steps)
    catalog = steps.connected.catalog
    plan, entries = catalog.get_plan(number), catalog.plan_entries(number)

    path = store_report(steps.connected, plan, entries)

    page = steps.stored()[path]
    assert path == f"retention_reports/plan_{number:06}.html"
    assert f"<title>Retention plan {number}</title>" in page
    text = " ".join(re.sub("<[^>]*>", " ", page[page.index("<h1>") :]).split())
    assert f"{plan.freed_bytes} B of {plan.size_bytes} B freed" in text
    assert "decided by &lt;b&gt;ann&lt;/b&gt;" in text
    assert "struck out by &lt;b&gt;ann&lt;/b&gt;" in text
    assert "pinned by its declaration 1 9 B" in text
    assert "unchanged for 31 days, never read" in text
    (total,) = totals(entries)
    assert (total.dag_id, total.outputs, total.deleted_files, total.freed_bytes) == ("dag", 2, 3, plan.freed_bytes)
    assert "http" not in page  # nothing from elsewhere


def test_the_plot_shows_bytes_by_age(steps: Steps, calendar: Calendar) -> None:
    for days in (0, 0.9, 7.1, 45, 200):
        calendar.days = 200 - days
        steps.write("a.txt", task_id=f"days{int(days * 10)}")
    calendar.days = 200
    catalog = steps.connected.catalog
    assert catalog.bytes_by_age([STORE], [1, 7, 14, 30, 60, 90]) == [18, 0, 9, 0, 9, 0, 9]
    assert catalog.bytes_by_age(["other"], [1]) == [0, 0]
    calendar.days = 216
    number = swept(steps)
    plan, entries = catalog.get_plan(number), catalog.plan_entries(number)

    page = report_page(plan, entries, catalog.bytes_by_age([STORE], [1, 7, 14, 30, 60, 90]), catalog.now())

    plot = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    bars = [[float(each.attrib["width"]) for each in bar.findall("rect")] for bar in plot.findall("g")]
    assert [bar[0] > 0 for bar in bars] == [False, False, False, True, False, False, False]
    assert [bar[1] > 0 for bar in bars] == [False, False, False, False, False, True, True]
    labels = [bar.findall("text")[0].text for bar in plot.findall("g")]
    assert labels == [
        "up to 1 day",
        "2 to 7 days",
        "8 to 14 days",
        "15 to 30 days",
        "31 to 60 days",
        "61 to 90 days",
        "over 90 days",
    ]
    assert all(sum(bar) <= 420 for bar in bars)


def test_a_plan_of_nothing_has_a_page_too(steps: Steps) -> None:
    plan = make_plan(steps.connected, RetentionScope(datastores=(STORE,)), nobody, by="a test")
    assert "0 B of 0 B freed" in report_page(plan, [], [0] * 7, plan.created_at + timedelta(days=1))
