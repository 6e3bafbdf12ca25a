"""The ``azureml`` modules that scripts import: ours inside steps, an installed SDK's by hand."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from airflow_aml_data import script_side


def test_the_stand_in_for_the_sdk_says_what_it_has(steps):
    steps.run("try: from azureml.core import Enviroment\nexcept ImportError as e: print(e)")
    assert (
        "azureml.core.Enviroment is not among what pipeline scripts find here: Dataset, Datastore, " in steps.lines[0]
    )


def test_what_is_imported_but_not_used_does_no_harm_and_its_use_says_what_to_do(steps):
    script = """
        from azureml.core import Environment, Run
        from azureml.core.authentication import ServicePrincipalAuthentication
        from azureml.core.compute import AmlCompute, ComputeTarget
        from azureml.core.compute_target import ComputeTargetException
        try:
            raise ValueError
        except ComputeTargetException:
            print("wrong")
        except ValueError:
            pass
        for use in (lambda: Environment("env"), lambda: Environment.get(None, "env"), lambda: ComputeTarget(None, "c")):
            try:
                use()
            except AttributeError as error:
                print(error)
    """
    steps.run(script)
    retired = "cannot be used here. The SDK v1 itself is retired: environments, compute and pipelines are declared in the DAG."
    assert steps.lines == [
        f"azureml.core.{each} {retired}" for each in ("Environment", "Environment.get", "compute.ComputeTarget")
    ]


OURS = [*script_side._MODULES, *(each for each in script_side._RETIRED if each not in script_side._MODULES)]
SHIM = sorted({(module, name) for module, names in script_side._MODULES.items() for name in names})


def test_every_v1_name_of_the_table_can_be_imported(steps):
    lines = "\n".join(f"from {module} import {name}" for module, name in SHIM)
    modules = "\n".join(f"import {module}" for module in OURS)
    steps.run(
        f"{modules}\nfrom azureml.core import *\n{lines}\nimport sys\nprint(Run.__module__, 'airflow' in sys.modules)"
    )
    assert steps.lines == ["airflow_aml_data.run False"]


def test_inside_a_step_ours_wins_over_an_installed_sdk_and_by_hand_theirs(steps, tmp_path):
    theirs = tmp_path / "site"
    for module in [*OURS, "azureml", "azureml.train", "azureml.dataprep"]:
        parts = module.split(".")
        folder = theirs.joinpath(*parts) if len(parts) < 3 else theirs.joinpath(*parts[:-1])
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / ("__init__.py" if len(parts) < 3 else f"{parts[-1]}.py")
        file.write_text(
            "theirs = True\n" + "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n" * (len(parts) < 3)
        )
    modules = [*OURS, "azureml.train"]
    script = "".join(f"import {each}; print('theirs' in vars({each}))\n" for each in modules)

    steps.run(script, environment_variables={"PYTHONPATH": str(theirs)})

    assert steps.lines == ["False"] * len(OURS) + ["True"]
    environment = {**os.environ, "PYTHONPATH": str(theirs)}
    by_hand = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert by_hand.stdout.split() == ["True"] * len(modules)


@pytest.mark.parametrize("first", ["azureml.core", "azureml.data", "azureml.exceptions", "azureml.core.run"])
def test_other_packages_in_azureml_do_not_hide_ours(tmp_path, first):
    """Microsoft's mltable brings azureml.dataprep, and with it an ``azureml`` of its own."""
    (tmp_path / "azureml" / "dataprep").mkdir(parents=True)
    (tmp_path / "azureml" / "dataprep" / "__init__.py").touch()
    (tmp_path / "azureml" / "__init__.py").write_text(
        "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"
    )
    script = f"import azureml.dataprep, {first}; print({first}.__all__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert said.stdout.strip() == str(script_side.names_of(first))


@pytest.mark.slow
def test_a_dag_file_gets_the_output_that_tells_airflow_the_order():
    code = "import airflow; from azureml.data import OutputFileDatasetConfig as O; print(O.__module__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split()[-1] == "airflow_aml_data.outputs"
