"""The golden cases of the v1 SDK's behaviour: each is a test ``test_gNN_...`` that uses the package as an author does.

Where a name says "here", or "not offered yet", the package deviates from v1; README's table of deviations says why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import BundleDagBag

from tests.skin.conftest import dags_folder, parse

__all__ = ["dags_folder", "parse"]

DAG_FILE = """
from airflow.sdk import DAG
from airflow_aml_data import (
    Dataset, DatasetConsumptionConfig, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace,
)

store = Workspace().get_default_datastore()
files = Dataset.File.from_files((store, "raw"))
table = Dataset.Tabular.from_delimited_files((store, "raw.csv"))
a, b = OutputFileDatasetConfig("a"), OutputFileDatasetConfig("b")


def step(task_id, **data):
    return PythonScriptStepOperator(task_id=task_id, script_name="s.py", **data)


with DAG("golden"):
"""


@pytest.fixture
def parse_dag(parse: Callable[[str], BundleDagBag], dags_folder: Path) -> Callable[..., BundleDagBag]:
    """Parse a DAG file that ends with the given statements; ``s.py`` beside it has the given text."""

    def parse_statements(*statements: str, script: str = "") -> BundleDagBag:
        (dags_folder / "s.py").write_text(script)
        return parse(DAG_FILE + "".join(f"    {each}\n" for each in statements))

    return parse_statements


@pytest.fixture
def refusal(parse_dag: Callable[..., BundleDagBag]) -> Callable[..., str]:
    """The import error of a DAG file that ends with the given statements."""

    def parse_mistake(*statements: str) -> str:
        bag = parse_dag(*statements)
        assert bag.dags == {}
        (error,) = bag.import_errors.values()
        return str(error)

    return parse_mistake
