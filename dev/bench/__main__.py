"""Run the benches, all or those named: ``python -m dev.bench [NAME ...]``."""

import argparse
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import dev.bench
from dev.bench.report import Report

RESULT = Path("build") / "bench.json"


def find_benches() -> dict[str, ModuleType]:
    """Give the modules of this package that have a ``run``, by name."""
    names = [module.name for module in iter_modules(dev.bench.__path__) if module.name != "__main__"]
    modules = {name: import_module(f"dev.bench.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def main() -> None:
    benches = find_benches()
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description="Compare ours with theirs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(benches)}; by default all")
    names = parser.parse_args().names or list(benches)
    if unknown := sorted(set(names) - set(benches)):
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(benches)}")
    report = Report()
    for name in names:
        print(f"{name} ...", flush=True)
        benches[name].run(report)
    report.write(RESULT)
    print(f"\n{report.table()}\n\nratio: how many times better ours is. All of it is in {RESULT}.")


if __name__ == "__main__":
    main()
