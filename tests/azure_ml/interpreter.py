"""The Python that jobs run in: the packages of this one, without Airflow and without the project."""

from __future__ import annotations

import sysconfig
import venv
from pathlib import Path

_ABSENT = ("airflow", "apache_airflow", "_airflow_aml_data")


def make_interpreter(folder: Path) -> Path:
    """The folder with its ``python``; made when it is missing."""
    programs = folder / "bin"
    if not folder.exists():
        venv.create(folder, symlinks=True)
        [packages] = folder.glob("lib/python*/site-packages")
        for each in Path(sysconfig.get_path("purelib")).iterdir():
            if not each.name.startswith(_ABSENT):
                (packages / each.name).symlink_to(each)
    return programs
