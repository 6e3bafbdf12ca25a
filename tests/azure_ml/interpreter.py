"""The Python that jobs run in: the packages of this one, without Airflow and the project, and those that their environment names."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

_ABSENT = ("airflow", "apache_airflow", "_airflow_aml_data")
_OUTSIDE = dict(os.environ)
"""As it was before tests led everything to servers of their own."""


def packages_of(environment: dict[str, Any]) -> list[str]:
    """What an environment has pip install."""
    listed = (yaml.safe_load(environment.get("condaFile") or "") or {}).get("dependencies", [])
    return [package for each in listed if isinstance(each, dict) for package in each["pip"]]


def make_interpreter(folder: Path, packages: Iterable[str] = ()) -> Path:
    """The folder below ``folder`` with its ``python``; made when it is missing."""
    missing = sorted(each for each in packages if not _is_here(Requirement(each)))
    home = folder / sha256("\n".join(missing).encode()).hexdigest()[:8]
    programs = home / "bin"
    if not home.exists():
        venv.create(home, symlinks=True)
        [site_packages] = home.glob("lib/python*/site-packages")
        for each in Path(sysconfig.get_path("purelib")).iterdir():
            if not each.name.startswith(_ABSENT):
                (site_packages / each.name).symlink_to(each)
        if missing:
            uv = Path(sys.executable).with_name("uv")
            command = [
                str(uv),
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--python",
                str(programs / "python"),
                *missing,
            ]
            subprocess.run(command, env=_OUTSIDE, check=True)
    return programs


def _is_here(wanted: Requirement) -> bool:
    try:
        return wanted.specifier.contains(version(wanted.name))
    except PackageNotFoundError:
        return False
