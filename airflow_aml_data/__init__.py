"""Azure ML SDK v1 pipelines on Apache Airflow 3."""

__version__ = "0.1.0"
