"""What it takes to hand 10,000 files from one step to the next on local disk, against ``cp -r``.

*Handed*: from a committed output to the moment the next step's script starts: manifest read, every file verified,
mounted. *Committed and handed*: what follows the first script's end too: checksums, manifest, publication, catalog.
Theirs is one ``cp -r`` into a new folder, and nothing else; how long that takes depends on how fast the file system makes
files, which differs many times between machines and moments.
"""

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from airflow_aml_data.core.compute.local import Command
from airflow_aml_data.core.configuration import WorkspaceConfig
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.outputs import OutputFileDatasetConfig, OutputReference
from airflow_aml_data.core.plan import StepDeclaration
from airflow_aml_data.core.step import run_step
from dev.bench.report import Report, Row

FILES = 10_000
SIZES = {"4 KiB": 4 * 1024, "128 KiB": 128 * 1024}
RUNS = 3
WARMUP = 1


def run(report: Report) -> None:
    for size, size_bytes in SIZES.items():
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "sources").mkdir()
            (folder / "sources" / "step.py").write_text("")
            write_files(folder / "original", size_bytes)
            workspace = ConnectedWorkspace(WorkspaceConfig.from_mapping("azureml_default", {}, folder / "workspace"))
            rounds = []
            for _ in range(WARMUP + RUNS):
                copied = copy(folder / "original", folder / f"copy_{uuid.uuid4()}")
                rounds.append((*hand_over(workspace, folder, size_bytes), copied))
        committed, handed, copied = (median(each) for each in zip(*rounds[WARMUP:], strict=True))
        files = f"{FILES:,} files of {size}"
        report.add(Row(name=f"{files} handed to the next step (theirs: cp -r)", ours=handed, theirs=copied, target=20))
        report.add(Row(name=f"{files} committed and handed (theirs: cp -r)", ours=committed + handed, theirs=copied))


@dataclass
class Script:
    """Stands for a script, so that what is around it can be timed."""

    act: Callable[[Command], None]
    started: float = 0.0
    ended: float = 0.0

    def run(self, command: Command, on_line: Callable[[str], None]) -> int:
        self.started = time.perf_counter()
        self.act(command)
        self.ended = time.perf_counter()
        return 0


def hand_over(workspace: ConnectedWorkspace, folder: Path, size_bytes: int) -> tuple[float, float]:
    """Run a step that writes the files and one that finds them.

    :returns: Seconds from the end of the first script to the end of its step, and from the start of the second step to
        the start of its script.
    """

    def step(script: Script, inputs: Sequence[object] = (), outputs: Sequence[object] = ()) -> list[OutputReference]:
        declared = StepDeclaration(
            run=StepRun(dag_id="bench", run_id="bench", task_id="step", unique=str(uuid.uuid4())),
            command=[sys.executable, "step.py"],
            source_directory=folder / "sources",
            inputs=inputs,
            outputs=outputs,
        )
        return run_step(workspace, declared, script, on_line=print, scratch_root=folder / "scratch").outputs

    write = Script(lambda command: write_files(Path(command.environment["AZURE_ML_OUTPUT_files"]), size_bytes))
    outputs = step(write, outputs=[OutputFileDatasetConfig("files").as_upload()])
    between = time.perf_counter()
    read = Script(check_files)
    step(read, inputs=outputs)
    return between - write.ended, read.started - between


def check_files(command: Command) -> None:
    found = sum(1 for _ in Path(command.environment["AZURE_ML_INPUT_input_1"]).iterdir())
    if found != FILES:
        raise RuntimeError(f"the next step finds {found} of {FILES} files")


def write_files(folder: Path, size_bytes: int) -> None:
    folder.mkdir(exist_ok=True)
    content = b"x" * size_bytes
    for number in range(FILES):
        (folder / f"{number:05}").write_bytes(content)


def copy(source: Path, target: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    return time.perf_counter() - start
