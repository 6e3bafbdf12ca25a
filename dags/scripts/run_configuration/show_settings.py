"""Log which Python runs this script, and what its environment tells it.

By hand::

    UNIT=pixel python show_settings.py
"""

import os
import sys

from airflow_aml_data import Run

run = Run.get_context()
run.log("python", sys.executable)
for name in ("UNIT", "DAG_RUN", "AML_PARAMETER_longest_side", "AML_PARAMETER_quality"):
    run.log(name, os.environ.get(name, "not set"))
