"""The ``azureml`` modules that v1 scripts import, made from one table.

Each name is loaded when it is first used, so ``from azureml.core import Run`` costs no more than ``Run`` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

_HOMES = {
    "Run": "airflow_aml_data.run",
    "_OfflineRun": "airflow_aml_data.run",
    "Experiment": "airflow_aml_data.run",
    "Dataset": "airflow_aml_data",
    "Datastore": "airflow_aml_data",
    "Workspace": "airflow_aml_data",
    "Model": "airflow_aml_data.core.models",
    "VERSION": "airflow_aml_data:__version__",
    "DataPath": "airflow_aml_data",
    "DatasetConsumptionConfig": "airflow_aml_data",
    "OutputFileDatasetConfig": "airflow_aml_data.core.outputs",
    "FileDataset": "airflow_aml_data.core.datasets",
    "TabularDataset": "airflow_aml_data.core.datasets",
    "TabularDatasetFactory": "airflow_aml_data.core.factory",
    "FileDatasetFactory": "airflow_aml_data.core.factory",
    "AzureMLException": "airflow_aml_data.errors:AmlDataError",
    "UserErrorException": "airflow_aml_data.errors:UserError",
    "WebserviceException": "airflow_aml_data.errors:DatasetNotFound",  # v1: no model of that name
    "RunEnvironmentException": "airflow_aml_data.run",
}
"""v1's name to the module that has it here, and after a colon to its name there when it has another."""

_MODULES = {
    "azureml.core": ("Dataset", "Datastore", "Experiment", "Model", "Run", "VERSION", "Workspace"),
    "azureml.core.dataset": ("Dataset",),
    "azureml.core.datastore": ("Datastore",),
    "azureml.core.experiment": ("Experiment",),
    "azureml.core.model": ("Dataset", "Model"),
    "azureml.core.run": ("Run", "_OfflineRun"),
    "azureml.core.workspace": ("Workspace",),
    "azureml.data": ("FileDataset", "OutputFileDatasetConfig", "TabularDataset"),
    "azureml.data.datapath": ("DataPath",),
    "azureml.data.dataset_consumption_config": ("DatasetConsumptionConfig",),
    "azureml.data.dataset_factory": ("FileDatasetFactory", "TabularDatasetFactory"),
    "azureml.data.file_dataset": ("FileDataset",),
    "azureml.data.output_dataset_config": ("OutputFileDatasetConfig",),
    "azureml.data.tabular_dataset": ("TabularDataset",),
    "azureml.exceptions": (
        "AzureMLException",
        "RunEnvironmentException",
        "UserErrorException",
        "WebserviceException",
    ),
}


class NotInScripts(ImportError):
    """A script imports something of the SDK v1 that it cannot have here."""


def provide(package: str) -> Callable[[str], Any]:
    """Make the modules below one of the packages importable.

    :returns: The package's own ``__getattr__``.
    """
    for name in _MODULES:
        if name.startswith(f"{package}."):
            module = ModuleType(name, f"Stands in for the SDK v1's {name}.")
            module.__dict__.update(__getattr__=partial(_find, name), __all__=names_of(name))
            sys.modules[name] = module
            setattr(sys.modules[package], name.rpartition(".")[2], module)
    return partial(_find, package)


def names_of(module: str) -> list[str]:
    """The public names of one of the modules."""
    return [each for each in _MODULES[module] if not each.startswith("_")]


def _find(module: str, name: str) -> Any:
    if name not in _MODULES[module]:
        if name.startswith("__"):  # Python itself asks
            raise AttributeError(name)
        raise NotInScripts(
            f"{module}.{name} is not among what pipeline scripts find here: {', '.join(names_of(module))}. The SDK v1 itself is "
            "retired; environments, compute and pipelines are declared in the DAG."
        )
    home, _, other_name = _HOMES[name].partition(":")
    if name == "OutputFileDatasetConfig" and "airflow" in sys.modules:  # a DAG file: outputs tell Airflow the order
        home = "airflow_aml_data.outputs"
    return getattr(import_module(home), other_name or name)
