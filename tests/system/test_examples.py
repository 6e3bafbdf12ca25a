"""The example pipeline under a real scheduler: what ``make demo`` shows, and two runs of it at once."""

from __future__ import annotations

import pytest

from airflow_aml_data.core.connect import connect
from dev.local_airflow import LocalAirflow

pytestmark = pytest.mark.system


def test_two_runs_at_once_share_one_sqlite_catalog_and_mix_nothing(
    airflow: LocalAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(airflow.home))

    runs = [airflow.trigger("aml_article", conf={"sample_share": share, "trees": 5}) for share in (0.02, 0.04)]
    states = [airflow.wait("aml_article", run, timeout_seconds=180) for run in runs]

    assert states == ["success", "success"]
    outputs = {run: connect().catalog.find_outputs(dag_id="aml_article", run_id=run) for run in runs}
    for found in outputs.values():
        assert sorted(each.name for each in found) == ["model", "processed_data", "report"]
        assert {each.state for each in found} == {"committed"}
    paths = [each.path for found in outputs.values() for each in found]
    assert len(set(paths)) == len(paths)
    versions = [
        airflow.xcom("aml_article", run, "prepare", "processed_data")["__data__"]["dataset_version"] for run in runs
    ]
    assert abs(versions[0] - versions[1]) == 1  # other tests may have registered some before
    assert connect().catalog.get_dataset("processed_data").version == max(versions)
    flights = [airflow.xcom("aml_article", run, "evaluate")["flights"] for run in runs]
    assert 1.7 < flights[1] / flights[0] < 2.3
