"""Everything that is not Airflow: nothing in here imports it."""
