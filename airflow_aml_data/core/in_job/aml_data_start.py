"""Starts a step's script in an Azure ML job; lies beside the script, with this package in a zip file.

Any Python 3 can read this file, to say what it lacks.
"""

import os
import sys
import tempfile
import zipfile


def main() -> None:
    """Unpack this package, and run the script."""
    if sys.version_info < (3, 11):
        sys.exit(
            "The job's environment has Python %d.%d, and airflow-aml-data needs 3.11 or later there. Name another environment in the "
            "step's RunConfiguration." % sys.version_info[:2]
        )
    here = os.path.dirname(os.path.abspath(__file__))
    script_side = tempfile.mkdtemp(prefix="aml_data_")
    with zipfile.ZipFile(os.path.join(here, "aml_data.zip")) as package:
        package.extractall(script_side)
    sys.path.insert(0, script_side)
    from airflow_aml_data.core.in_job.around import main as run

    sys.exit(run(script_side, sys.argv[1:]))


if __name__ == "__main__":
    main()
