"""From Airflow connections to workspaces."""
