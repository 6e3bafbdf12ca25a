"""Scripts that are run by hand, outside any step."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest


def test_a_v1_script_runs_by_hand_with_its_arguments_and_modules(tmp_path: Path) -> None:
    (tmp_path / "rates.py").write_text("RATE = 0.1")
    (tmp_path / "train.py").write_text(
        "import sys\nfrom azureml.core import Run\nfrom rates import RATE\nrun = Run.get_context()\n"
        "run.log('rate', RATE, sys.argv[1])\nprint(run.input_datasets)\n"
    )

    done = subprocess.run([sys.executable, "train.py", "x"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.stdout == "metric rate = 0.1 (x)\n"
    assert "Run.input_datasets exists only inside a pipeline step, and this script runs by hand" in done.stderr


@pytest.mark.slow
def test_the_installed_wheel_brings_the_v1_imports_behind_a_real_azureml_core(tmp_path: Path) -> None:
    project = Path(__file__).parents[2]
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "--wheel", "--quiet", "--out-dir", tmp_path, project], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    ask = [python, "-c", "import azureml.core; print(azureml.core.__file__)"]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    ours = subprocess.run(ask, capture_output=True, text=True, check=True, env=clean).stdout
    (site_packages,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    (site_packages / "azureml" / "core").mkdir(parents=True)
    (site_packages / "azureml" / "core" / "__init__.py").touch()
    (site_packages / "azureml" / "__init__.py").write_text(
        "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"
    )
    theirs = subprocess.run(ask, capture_output=True, text=True, check=True, env=clean).stdout

    assert ours.strip().endswith("airflow_aml_data/script_side/azureml/core/__init__.py")
    assert theirs.strip() == str(site_packages / "azureml" / "core" / "__init__.py")
