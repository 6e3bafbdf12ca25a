"""The environment variables by which a step's script finds its inputs and outputs. Standard library only.

Source of the names: v1, semantics section 8; ``AZUREML_DATAREFERENCE_`` is what older scripts read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from airflow_aml_data.core.protocol import RUN_FILE_VARIABLE, RunFile

INPUT_PREFIX, OUTPUT_PREFIX = "AZURE_ML_INPUT_", "AZURE_ML_OUTPUT_"

_RESERVED = {"PATH", "LD_LIBRARY_PATH", "USER", "LOGNAME", "HOME", "PWD", "SHELL"} | {
    "LD_PRELOAD",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    RUN_FILE_VARIABLE,
}
"""The first line is v1's."""


def is_reserved_variable(name: str) -> bool:
    """Whether programs rely on the environment variable of that name, so that a step leaves it alone."""
    return name.upper() in _RESERVED


def script_variables(inherited: Mapping[str, str], told: RunFile, run_file: Path, script_side: Path) -> dict[str, str]:
    """The environment of a script.

    :param inherited: What it has besides.
    :param told: What its run file says, which lies at ``run_file``.
    :param script_side: The folder from which it imports this package, and ``azureml.core``.
    """
    environment = dict(inherited)
    environment[RUN_FILE_VARIABLE] = str(run_file)
    environment["AZUREML_RUN_ID"] = told.id
    environment["AZUREML_DATASET_ENVIRONMENT_VARS"] = ",".join(
        f"{name}:{each.mode}" for name, each in told.inputs.items()
    )
    environment["AZUREML_DATASET_FILE_OUTPUTS"] = ";".join(told.outputs)
    paths = {name: each.path or each.dataset["id"] for name, each in told.inputs.items()}
    for prefix, named in ((INPUT_PREFIX, paths), (OUTPUT_PREFIX, told.outputs)):
        for name, value in named.items():
            environment[prefix + name] = environment[f"AZUREML_DATAREFERENCE_{name}"] = value
            if not is_reserved_variable(name):
                environment[name] = value
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join([str(script_side), *filter(None, [environment.get("PYTHONPATH")])])
    return environment
