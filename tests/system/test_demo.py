"""``make demo``, in the Airflow that the system tests share."""

import re

import pytest

from dev.demo import Demo
from dev.local_airflow import LocalAirflow

pytestmark = pytest.mark.system


def test_the_demo_shows_what_each_step_read_and_wrote(
    airflow: LocalAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = Demo(airflow, airflow.home)

    assert demo.run()

    shown = capsys.readouterr().out
    for task in ("raw_data", "prepare", "train", "evaluate", "summary"):
        assert re.search(rf"^{task} +success +[\d.]+ s$", shown, re.MULTILINE)
    processed = rf"workspaceblobstore:article/aml_article\.{demo.run_id}\.prepare\.try1\.\w+/processed_data"
    assert re.search(r"reads +train \(direct\) +as a table +flights version \d+, \w+:examples/flights.csv", shown)
    assert re.search(
        rf"writes +processed_data \(upload\) +2 files, [\d.]+ KiB +{processed}, dataset \w+ version", shown
    )
    assert re.search(rf"reads +prepared \(mount\) +2 files, [\d.]+ KiB +{processed}", shown)
    assert re.search(r"^Score +off by 1[12]\.\d+ minutes", shown, re.MULTILINE)
    assert re.search(rf"^Data +{airflow.home}/azureml_workspace/", shown, re.MULTILINE)
