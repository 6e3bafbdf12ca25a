"""Say a lot and fail, but not a second time."""

import sys
from pathlib import Path

note, out = Path(sys.argv[1]), Path(sys.argv[2])
if not note.exists():
    note.touch()
    print(*(f"line {number} of 150" for number in range(1, 151)), sep="\n")
    sys.exit(3)
(out / "done.txt").write_text("done")
