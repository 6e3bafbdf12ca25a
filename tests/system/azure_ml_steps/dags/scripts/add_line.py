"""Write the lines of a folder to another one, and one more: whether this is a job of Azure ML."""

import os
import sys
from pathlib import Path

written, *read = (Path(each) for each in sys.argv[1:])
before = "".join((each / "lines.txt").read_text() for each in read)
(written / "lines.txt").write_text(before + ("job\n" if "AZUREML_ARM_WORKSPACE_NAME" in os.environ else "worker\n"))
