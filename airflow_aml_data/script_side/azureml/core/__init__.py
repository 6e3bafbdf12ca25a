"""``from azureml.core import Run``, as v1 scripts begin."""

from typing import Any

from airflow_aml_data.run import Run

__all__ = ["Dataset", "Datastore", "Run", "Workspace"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import airflow_aml_data

        return getattr(airflow_aml_data, name)
    raise AttributeError(
        f"azureml.core.{name} is not among what pipeline scripts find here: {', '.join(__all__)}. "
        "The SDK v1 itself is retired."
    )
