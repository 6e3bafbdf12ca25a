"""Who loads what: checked in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import airflow_aml_data

ROOT = Path(__file__).parents[1]


def loaded(code: str, *modules: str) -> set[str]:
    """Which of the modules a fresh process has loaded after some code."""
    check = f"{code}\nimport sys; print(*({set(modules)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_of_it_but_the_names():
    heavy = {
        "airflow",
        "pandas",
        "pyarrow",
        "numpy",
        "sqlalchemy",
        "airflow_aml_data.core.datasets",
        "airflow_aml_data.run",
    }
    assert loaded("import airflow_aml_data; dir(airflow_aml_data)", *heavy) == set()


@pytest.mark.slow
def test_every_public_name_can_be_had_and_unknown_ones_are_refused():
    code = (
        "import airflow_aml_data as a\n"
        "assert all(getattr(a, name).__name__ == name for name in a.__all__), a.__all__\n"
        "try: a.Nothing\n"
        "except AttributeError as error: assert 'it has: CommandStepOperator, DataPath' in str(error)\n"
        "else: raise SystemExit(1)"
    )
    assert loaded(code) == set()
    assert set(airflow_aml_data.__all__) <= set(dir(airflow_aml_data))


@pytest.mark.slow
def test_the_core_does_not_import_airflow():
    modules = [
        ".".join(each.relative_to(ROOT).with_suffix("").parts)
        for each in sorted((ROOT / "airflow_aml_data" / "core").rglob("*.py"))
        if "migrations" not in each.parts and each.name not in ("__init__.py", "launcher.py")
    ]
    assert len(modules) > 20
    code = "import " + ", ".join([*modules, "airflow_aml_data.run", "airflow_aml_data.errors"])
    assert loaded(code, "airflow", "airflow.sdk") == set()


def test_declaring_data_loads_no_library_for_data_or_databases():
    code = (
        "from airflow_aml_data import DataPath, Dataset, Datastore, Workspace\n"
        "from airflow_aml_data.core.outputs import OutputFileDatasetConfig\n"
        "store = Datastore.get(Workspace(), 's')\n"
        "table = Dataset.Tabular.from_delimited_files(DataPath(store, 'x.csv'))\n"
        "table.random_split(0.8)[0].as_named_input('train')\n"
        "Dataset.File.from_files((store, 'f')).take_sample(0.5, 1).as_mount()\n"
        "OutputFileDatasetConfig(destination=(store, 'p')).as_upload().register_on_complete('n')"
    )
    assert loaded(code, "airflow", "pandas", "pyarrow", "numpy", "sqlalchemy", "alembic", "xxhash") == set()


def test_imports_go_down_only():
    """The contracts in pyproject.toml."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
