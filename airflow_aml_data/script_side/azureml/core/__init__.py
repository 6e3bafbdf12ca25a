"""Stands in for the SDK v1's azureml.core; :mod:`airflow_aml_data.script_side` says what is in it."""

from airflow_aml_data.script_side import names_of, provide

__all__ = names_of(__name__)
__getattr__ = provide(__name__)
