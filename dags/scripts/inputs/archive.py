"""Pack all files of a folder into ``files.zip``. Every byte is read: a case for a download.

By hand::

    python archive.py --folder folder --archive somewhere
"""

import argparse
import zipfile
from pathlib import Path

parser = argparse.ArgumentParser(description="Pack all files of a folder into files.zip.")
parser.add_argument("--folder", type=Path, required=True, help="what to pack")
parser.add_argument("--archive", type=Path, required=True, help="folder for files.zip")
args = parser.parse_args()

args.archive.mkdir(parents=True, exist_ok=True)
with zipfile.ZipFile(args.archive / "files.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for path in sorted(each for each in args.folder.rglob("*") if each.is_file()):
        archive.write(path, path.relative_to(args.folder))
        print(f"packed {path.name}, {path.stat().st_size} bytes")
