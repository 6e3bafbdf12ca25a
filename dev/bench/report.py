"""What a bench found, and how to measure two things side by side."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Literal

HEADINGS = ("what", "ours", "theirs", "unit", "ratio", "target", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison. ``ratio`` says how many times better ours is: above 1 is better than theirs.

    :param better: Whether the lower or the higher of two measurements is the better one.
    :param target: The least ratio to reach; None where there is nothing to reach.
    :param most_more: How much more than theirs ours may be, in ``unit``, where a difference is the target.
    :param most: How much ours may be, in ``unit``, whatever theirs is.
    """

    name: str
    ours: float
    theirs: float
    unit: str = "s"
    better: Literal["lower", "higher"] = "lower"
    target: float | None = None
    most_more: float | None = None
    most: float | None = None

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours if self.better == "lower" else self.ours / self.theirs

    @property
    def met(self) -> bool | None:
        """Tell whether the target is reached; None without a target."""
        if self.most is not None:
            return self.ours <= self.most
        if self.most_more is not None:
            return self.ours - self.theirs <= self.most_more
        return None if self.target is None else self.ratio >= self.target


@dataclass(slots=True)
class Report:
    """Collects the rows of all benches."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def table(self) -> str:
        """Give the rows as an aligned table."""
        lines = [HEADINGS, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        # Words to the left, numbers to the right.
        sides = ("<", ">", ">", "<", ">", ">", "<")
        return "\n".join(
            "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True))
            for line in lines
        )

    def write(self, file: Path) -> None:
        """Write the rows and what they were measured on as JSON."""
        machine = {
            "airflow": version("apache-airflow"),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        }
        rows = [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in self.rows]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def paired(
    ours: Callable[[], object], theirs: Callable[[], object], *, runs: int = 5, warmup: int = 1
) -> tuple[float, float]:
    """Time two callables alternately, so that a busy machine is busy for both; give medians in seconds."""

    def timed(act: Callable[[], object]) -> Callable[[], float]:
        def seconds() -> float:
            start = time.perf_counter()
            act()
            return time.perf_counter() - start

        return seconds

    return paired_measurements(timed(ours), timed(theirs), runs=runs, warmup=warmup)


def paired_measurements(
    ours: Callable[[], float], theirs: Callable[[], float], *, runs: int = 5, warmup: int = 1
) -> tuple[float, float]:
    """Like :func:`paired`, for callables that measure themselves and give the number."""
    both = [(theirs(), ours()) for _ in range(warmup + runs)][warmup:]
    return median(ours for _, ours in both), median(theirs for theirs, _ in both)


def _cells(row: Row) -> tuple[str, ...]:
    def number(value: float) -> str:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"

    verdict = {True: "met", False: "missed", None: ""}[row.met]
    target = "" if row.target is None else f">= {row.target:g}"
    target = target if row.most is None else f"<= {row.most:g} {row.unit}"
    target = target if row.most_more is None else f"+{row.most_more:g} {row.unit}"
    return row.name, number(row.ours), number(row.theirs), row.unit, number(row.ratio), target, verdict
