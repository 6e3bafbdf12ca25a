"""What a step's script is and imports: its sources, copied for it, and this package beside them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from airflow_aml_data.errors import InvalidDeclaration

_PACKAGE = Path(__file__).parents[1]
SCRIPT_SIDE = {
    "airflow_aml_data": _PACKAGE,
    "azureml": _PACKAGE / "script_side" / "azureml",
    "sitecustomize.py": _PACKAGE / "core" / "compute" / "startup" / "sitecustomize.py",
}
"""Any interpreter can import these, and nothing else of ours, from a folder that has them under these names."""

_LIMIT_FILES = 2000
_LIMIT_BYTES = 300 * 1024 * 1024
"""v1's limits of a snapshot (semantics section 12)."""
_NEVER_COPIED = {".git", "__pycache__", ".venv", ".ipynb_checkpoints"}


def snapshot(source: Path, work: Path) -> None:
    """Copy a source directory to a folder that does not exist yet.

    :raises InvalidDeclaration: when it is larger than v1 lets it be, or holds something that cannot be copied.
    """
    files = size = 0
    for folder, names, file_names in os.walk(source):
        names[:] = [each for each in names if each not in _NEVER_COPIED]
        files += len(file_names)
        size += sum(os.lstat(os.path.join(folder, each)).st_size for each in file_names)  # noqa: PTH118
        if files > _LIMIT_FILES or size > _LIMIT_BYTES:
            raise InvalidDeclaration(
                f"source_directory {str(source)!r} holds more than {_LIMIT_FILES} files or {_LIMIT_BYTES >> 20} MB, which is "
                "what a step's sources may be. Name a folder that holds only the script and what it imports."
            )
    try:
        shutil.copytree(source, work, ignore=shutil.ignore_patterns(*_NEVER_COPIED), ignore_dangling_symlinks=True)
    except shutil.Error as error:
        first, _, why = error.args[0][0]
        raise InvalidDeclaration(
            f"source_directory {str(source)!r} holds something that cannot be copied, the first is {first!r}: {why}."
        ) from error
