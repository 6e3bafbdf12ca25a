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

from airflow_aml_data.errors import NotOffered

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
    "DataType": "airflow_aml_data",
    "PromoteHeadersBehavior": "airflow_aml_data",
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
    "azureml.data": ("DataType", "FileDataset", "OutputFileDatasetConfig", "TabularDataset"),
    "azureml.data.datapath": ("DataPath",),
    "azureml.data.dataset_type_definitions": ("PromoteHeadersBehavior",),
    "azureml.data.dataset_consumption_config": ("DatasetConsumptionConfig",),
    "azureml.data.dataset_factory": ("DataType", "FileDatasetFactory", "TabularDatasetFactory"),
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


_RETIRED = {
    "azureml.core": ("ComputeTarget", "Environment", "RunConfiguration", "ScriptRunConfig"),
    "azureml.core.authentication": (
        "InteractiveLoginAuthentication",
        "MsiAuthentication",
        "ServicePrincipalAuthentication",
    ),
    "azureml.core.compute": ("AmlCompute", "ComputeInstance", "ComputeTarget"),
    "azureml.core.compute_target": ("ComputeTargetException",),
    "azureml.core.conda_dependencies": ("CondaDependencies",),
    "azureml.core.environment": ("Environment",),
    "azureml.core.runconfig": ("RunConfiguration",),
}
"""What scripts often import and seldom use: it can be imported, and says what to do when it is used."""

_DECLARED_IN_THE_DAG = "The SDK v1 itself is retired: environments, compute and pipelines are declared in the DAG."


class _Retired(type):
    """The class of what can be imported only."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise NotOffered(f"{cls.__module__}.{cls.__name__} cannot be used here. {_DECLARED_IN_THE_DAG}")

    def __getattr__(cls, name: str) -> Any:
        raise NotOffered(f"{cls.__module__}.{cls.__name__}.{name} cannot be used here. {_DECLARED_IN_THE_DAG}")


class NotInScripts(ImportError):
    """A script imports something of the SDK v1 that it cannot have here."""


def provide(package: str) -> Callable[[str], Any]:
    """Make the modules below one of the packages importable.

    :returns: The package's own ``__getattr__``.
    """
    for name in {**_MODULES, **_RETIRED}:
        if name.startswith(f"{package}."):
            module = ModuleType(name, f"Stands in for the SDK v1's {name}.")
            module.__dict__.update(__getattr__=partial(_find, name), __all__=names_of(name))
            sys.modules[name] = module
            setattr(sys.modules[package], name.rpartition(".")[2], module)
    return partial(_find, package)


def names_of(module: str) -> list[str]:
    """The public names of one of the modules."""
    return [each for each in _MODULES.get(module, ()) if not each.startswith("_")]


def _find(module: str, name: str) -> Any:
    if name in _RETIRED.get(module, ()):
        return _Retired(name, (Exception,), {"__module__": module})
    if name not in _MODULES.get(module, ()):
        if name.startswith("__"):  # Python itself asks
            raise AttributeError(name)
        raise NotInScripts(
            f"{module}.{name} is not among what pipeline scripts find here: {', '.join(names_of(module))}. {_DECLARED_IN_THE_DAG}"
        )
    home, _, other_name = _HOMES[name].partition(":")
    if name == "OutputFileDatasetConfig" and "airflow" in sys.modules:  # a DAG file: outputs tell Airflow the order
        home = "airflow_aml_data.outputs"
    return getattr(import_module(home), other_name or name)
