"""Write a file when another one is there."""

import sys
import time
from pathlib import Path

go, out = Path(sys.argv[1]), Path(sys.argv[2])
print("waiting", flush=True)
while not go.exists():
    time.sleep(0.05)
(out / "done.txt").write_text("done")
