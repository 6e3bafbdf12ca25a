"""A step that was suspended for so long that another has taken its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.step import run_step
from airflow_aml_data.errors import StaleTry
from tests.core.steps import WRITE

FIXED = OutputFileDatasetConfig("out", destination=(None, "fixed")).as_upload(overwrite=True)


def an_hour_later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def test_a_step_whose_claim_another_has_taken_over_changes_nothing_of_the_others_output(steps):
    later = steps.connected
    later.__dict__["catalog"] = Catalog(later.config.catalog_connection_string, now=an_hour_later)
    other = steps.declare(WRITE.replace("new ", "the other's "), arguments=[FIXED, "a.txt"], task_id="other")

    class Suspended(LocalCompute):
        """While the script runs, an hour passes, and another step writes to the same place."""

        def run(self, command, on_line):
            code = super().run(command, on_line)
            run_step(later, other, LocalCompute(), on_line=on_line, scratch_root=steps.folder / "other_scratch")
            return code

    suspended = steps.declare(WRITE, arguments=[FIXED, "a.txt", "b.txt"], task_id="suspended")

    with pytest.raises(StaleTry):
        run_step(steps.connected, suspended, Suspended(), on_line=print, scratch_root=steps.scratch)

    assert (steps.root / "fixed" / "a.txt").read_text() == "the other's a.txt"
    assert [each.name for each in (steps.root / "fixed").iterdir()] == ["a.txt"]
