"""Pipeline steps as Airflow tasks."""
