"""Log width and height of every JPEG file in a folder. Of each file a few bytes are read: a case for a mount.

By hand::

    python measure.py --images folder
"""

import argparse
import os
import struct
from pathlib import Path

from airflow_aml_data import Run

START_OF_FRAME = range(0xFFC0, 0xFFC4)


def jpeg_size(path: Path) -> tuple[int, int]:
    """Width and height, from the file's header."""
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            raise ValueError(f"{path} is not a JPEG file")
        while True:
            marker, length = struct.unpack(">HH", file.read(4))
            if marker in START_OF_FRAME:
                height, width = struct.unpack(">xHH", file.read(5))
                return width, height
            file.seek(length - 2, os.SEEK_CUR)


parser = argparse.ArgumentParser(description="Log width and height of the JPEG files in a folder.")
parser.add_argument("--images", type=Path, required=True, help="folder with the files, at any depth")
args = parser.parse_args()

run = Run.get_context()
for path in sorted(args.images.rglob("*.jpg")):
    width, height = jpeg_size(path)
    run.log_row(path.stem, width=width, height=height)
