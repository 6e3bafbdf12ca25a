"""
### What a script runs with: packages, variables, parameters

**What** `thumbnails` needs Pillow, which this Airflow does not have, so it asks for it. `show_settings` gets
environment variables and parameters.

**Why** A script's packages are its own affair: two steps of a DAG may want two versions of the same package, and
none of them touches Airflow's. The virtual environment is made once on each worker and kept.

| want | write | the script finds |
|---|---|---|
| packages | `RunConfiguration(requirements=["pillow==12.0.0"])` | them importable |
| another Python | `RunConfiguration(interpreter="/opt/python3.13/bin/python")` | itself run by it |
| variables | `RunConfiguration(environment_variables={"UNIT": "cm"})` | `os.environ["UNIT"]` |
| v1 step parameters | `params={"learning rate": 0.1}` | `os.environ["AML_PARAMETER_learning_rate"]` |

**Before** Run `aml_01_datasets`.

**Look at** the logs: the first run of `thumbnails` makes the environment, the second one finds it.
"""

from __future__ import annotations

import sys

from airflow.sdk import DAG, Param

from airflow_aml_data import Dataset, OutputFileDatasetConfig, PythonScriptStepOperator, RunConfiguration, Workspace

with DAG(
    "aml_07_run_configuration",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "size": Param(
            128, type="integer", minimum=16, maximum=512, description="Longest side of a thumbnail, in pixels."
        ),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    images = Dataset.get_by_name(Workspace(), "sample_images")

    PythonScriptStepOperator(
        task_id="thumbnails",
        source_directory="scripts/run_configuration",
        script_name="thumbnails.py",
        arguments=[
            "--images",
            images.as_named_input("images").as_mount(),
            "--thumbnails",
            OutputFileDatasetConfig("thumbnails").as_upload(),
        ],
        runconfig=RunConfiguration(
            requirements=["pillow==12.0.0"], environment_variables={"SIZE": "{{ params.size }}"}
        ),
    )
    PythonScriptStepOperator(
        task_id="show_settings",
        source_directory="scripts/run_configuration",
        script_name="show_settings.py",
        runconfig=RunConfiguration(
            interpreter=sys.executable,  # what is used anyway; name another Python of the worker here
            environment_variables={"UNIT": "pixel", "DAG_RUN": "{{ run_id }}"},
        ),
        params={"longest side": "{{ params.size }}", "quality": 90},
    )
