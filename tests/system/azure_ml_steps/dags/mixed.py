"""Steps that read of each other, here and there."""

from airflow.sdk import DAG

from airflow_aml_data import OutputFileDatasetConfig, PythonScriptStepOperator

with DAG("mixed"):
    read = []
    for task_id, compute_target in (("first", "local"), ("second", "cpu-cluster"), ("third", "local")):
        written = OutputFileDatasetConfig("lines").as_upload()
        PythonScriptStepOperator(
            task_id=task_id,
            source_directory="scripts",
            script_name="add_line.py",
            arguments=[written, *read],
            compute_target=compute_target,
            poll_seconds=1,
        )
        read = [written.as_input("before").as_mount()]
