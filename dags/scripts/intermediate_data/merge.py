"""The airlines and airports with the worst delays, of two results, as one table.

By hand, on the files that ``delays.py`` wrote::

    python merge.py --worst 5 --report folder airlines/delays.csv airports/delays.csv
"""

import argparse
from pathlib import Path

import pandas as pd

FEWEST_FLIGHTS = 100  # the mean of fewer says little

parser = argparse.ArgumentParser(description="The worst delays of airlines and airports as one table.")
parser.add_argument("--worst", type=int, default=5, help="how many of each")
parser.add_argument("--report", type=Path, required=True, help="folder for report.csv")
parser.add_argument("airlines", type=Path, help="delays.csv, or the folder with it")
parser.add_argument("airports", type=Path, help="delays.csv, or the folder with it")
args = parser.parse_args()


def worst(kind: str, path: Path) -> pd.DataFrame:
    delays = pd.read_csv(path / "delays.csv" if path.is_dir() else path)
    return delays[delays["flights"] >= FEWEST_FLIGHTS].nlargest(args.worst, "minutes").assign(kind=kind)


report = pd.concat([worst("airline", args.airlines), worst("airport", args.airports)])
args.report.mkdir(parents=True, exist_ok=True)
report[["kind", "value", "flights", "minutes"]].to_csv(args.report / "report.csv", index=False)
print(report.to_string(index=False))
