"""What Airflow loads in each of its processes."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin


class AmlDataPlugin(AirflowPlugin):
    """Lets every task open output references, also in DAG files that never import this package."""

    name = "aml_data"

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        from airflow.sdk.serde import allow_class

        from airflow_aml_data.core.outputs import OutputReference

        allow_class(OutputReference)
