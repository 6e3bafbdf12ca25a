"""Numbered migrations of the catalog, run by :mod:`airflow_aml_data.core.catalog.database`."""
