"""Runs first in a step's Python: lets a script make its output a file.

The article's script writes to the output's path as to a file, the v1 documentation calls it a folder, and
scripts of both kinds exist. A step finds the folder there, empty; when it opens that very path for writing,
the empty folder makes way.
"""

import os
import sys
from importlib.machinery import PathFinder


def _make_way_for_files(outputs: set[str]) -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and arguments[0] in outputs and int(arguments[2]) & os.O_CREAT:  # type: ignore[call-overload]
            try:
                os.rmdir(str(arguments[0]))  # noqa: PTH106 - no imports in a hook
            except OSError:
                return  # not empty, or no folder: the script's own affair

    sys.addaudithook(hook)


def _run_the_other_one() -> None:
    """An interpreter may have a sitecustomize of its own, which this one hides."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - start-up time
    elsewhere = [each for each in sys.path if os.path.abspath(each) != here]  # noqa: PTH100
    spec = PathFinder.find_spec("sitecustomize", elsewhere)
    if spec and spec.loader and spec.origin and not os.path.samefile(spec.origin, __file__):  # noqa: PTH121
        source = spec.loader.get_code("sitecustomize")  # type: ignore[attr-defined]
        exec(source, {"__name__": "sitecustomize", "__file__": spec.origin})  # noqa: S102


if os.environ.get("AML_DATA_RUN_FILE") and os.environ.get("AZUREML_DATASET_FILE_OUTPUTS"):
    _make_way_for_files(
        {os.environ["AZURE_ML_OUTPUT_" + name] for name in os.environ["AZUREML_DATASET_FILE_OUTPUTS"].split(";")}
    )
_run_the_other_one()
