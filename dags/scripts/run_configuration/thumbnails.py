"""Make small copies of the JPEG files in a folder. Needs Pillow.

By hand::

    SIZE=128 python thumbnails.py --images folder --thumbnails other_folder
"""

import argparse
import os
from pathlib import Path

from PIL import Image

from airflow_aml_data import Run

parser = argparse.ArgumentParser(description="Make small copies of the JPEG files in a folder.")
parser.add_argument("--images", type=Path, required=True)
parser.add_argument("--thumbnails", type=Path, required=True)
args = parser.parse_args()

size = int(os.environ["SIZE"])
run = Run.get_context()
args.thumbnails.mkdir(parents=True, exist_ok=True)
for path in sorted(args.images.rglob("*.jpg")):
    with Image.open(path) as image:
        image.thumbnail((size, size))
        image.save(args.thumbnails / path.name)
        run.log_row(path.stem, width=image.width, height=image.height)
