"""The bench's arithmetic and its table; what it measures is measured by ``make bench``."""

import json
from pathlib import Path

import pytest

from dev.bench.dag_files import Graph
from dev.bench.report import Report, Row, paired, paired_measurements


def test_a_ratio_above_one_means_ours_is_better_whichever_way_is_better() -> None:
    faster = Row(name="seconds", ours=2, theirs=6, target=2)
    slower = Row(name="rate", ours=50, theirs=100, unit="MB/s", better="higher", target=1)

    assert (faster.ratio, faster.met) == (3, True)
    assert (slower.ratio, slower.met) == (0.5, False)


def test_a_target_may_be_a_difference() -> None:
    assert Row(name="step", ours=0.3, theirs=0.1, most_more=0.3).met
    assert not Row(name="step", ours=0.5, theirs=0.1, most_more=0.3).met


def test_a_target_may_be_a_bound_whatever_theirs_is() -> None:
    assert Row(name="memory", ours=150, theirs=100, unit="MB", most=200).met
    assert not Row(name="memory", ours=250, theirs=900, unit="MB", most=200).met


def test_the_report_shows_and_stores_its_rows(tmp_path: Path) -> None:
    report = Report()
    report.add(Row(name="parse", ours=31.7, theirs=63.33, unit="ms", target=1))

    report.write(tmp_path / "build" / "bench.json")

    assert report.table().splitlines()[1].split() == ["parse", "31.7", "63.3", "ms", "2", ">=", "1", "met"]
    assert json.loads((tmp_path / "build" / "bench.json").read_text())["rows"][0]["met"] is True


def test_pairs_are_measured_alternately_and_warming_up_does_not_count() -> None:
    ours, theirs = iter([100.0, 1.0, 3.0, 2.0]), iter([100.0, 10.0, 30.0, 20.0])
    order: list[str] = []

    assert paired_measurements(lambda: next(ours), lambda: next(theirs), runs=3) == (2.0, 20.0)
    paired(lambda: order.append("ours"), lambda: order.append("theirs"), runs=1)
    assert order == ["theirs", "ours", "theirs", "ours"]


@pytest.mark.parametrize(("tasks", "edges"), [(200, 400), (10, 9)])
def test_a_wide_graph_has_the_edges_asked_for_and_no_cycle(tasks: int, edges: int) -> None:
    graph = Graph.wide(tasks=tasks, edges=edges)

    assert len(set(graph.edges)) == edges
    assert all(0 <= first < second < tasks for first, second in graph.edges)
