"""Airflow's DAG policy hook: wiring errors that show only in a whole DAG are raised while it is parsed.

Loaded in every Airflow process, so it imports nothing before a DAG with steps of ours comes by.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow.policies import hookimpl

if TYPE_CHECKING:
    from airflow.sdk import DAG


@hookimpl
def dag_policy(dag: DAG) -> None:
    """Check the steps of a DAG against each other and their sources.

    :raises AirflowClusterPolicyViolation: with the wiring error as text; Airflow shows it as the DAG's import error.
    """
    if "airflow_aml_data.operators.base" not in sys.modules:
        return
    from airflow.exceptions import AirflowClusterPolicyViolation

    from airflow_aml_data.errors import UserError
    from airflow_aml_data.operators.base import check

    for task in dag.tasks:
        try:
            check(task)
        except UserError as error:
            raise AirflowClusterPolicyViolation(str(error)) from error
