"""Steps on Azure ML under a real Airflow."""
