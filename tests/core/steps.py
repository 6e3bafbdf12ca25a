"""Run steps in a workspace below a temporary folder, without Airflow, and look at what they leave."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

from airflow_aml_data import Workspace
from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.plan import StepDeclaration, script_command
from airflow_aml_data.core.step import StepResult, run_step

WRITE = """
    import os, sys
    os.makedirs(sys.argv[1], exist_ok=True)
    for name in sys.argv[2:] or ["a.txt"]:
        path = os.path.join(sys.argv[1], name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").write("new " + name)
"""
"""Writes ``new NAME`` to each file named after the output's path."""

READ = """
    import os, sys
    for folder, _, names in os.walk(sys.argv[1]):
        for name in names:
            print(os.path.relpath(os.path.join(folder, name), sys.argv[1]), open(os.path.join(folder, name)).read())
"""
"""Prints every file below its first argument."""


@dataclass
class Steps:
    """Steps of one DAG run.

    :param folder: Sources and scratch folders are made in it.
    """

    workspace: Workspace
    folder: Path
    lines: list[str] = field(default_factory=list)

    @property
    def connected(self) -> ConnectedWorkspace:
        return self.workspace.connect()

    @property
    def root(self) -> Path:
        """The default datastore's folder."""
        config = self.connected.config
        return Path(config.datastores[config.default_datastore].options["root"])

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def declare(
        self,
        script: str,
        *,
        arguments: Sequence[Any] = (),
        task_id: str = "step",
        try_number: int = 1,
        run_id: str = "r1",
        interpreter: str = "",
        **more: Any,
    ) -> StepDeclaration:
        sources = self.folder / "sources" / f"{task_id}-{try_number}"
        sources.mkdir(parents=True, exist_ok=True)
        (sources / "script.py").write_text(dedent(script))
        sources = more.pop("source_directory", sources)
        script_name = more.pop("script_name", "script.py")
        return StepDeclaration(
            run=StepRun(dag_id="dag", run_id=run_id, task_id=task_id, try_number=try_number),
            command=script_command(sources, script_name, interpreter or sys.executable, arguments),
            title=script_name,
            source_directory=sources,
            **more,
        )

    def run(
        self, script: str, *, compute: Any = None, on_line: Callable[[str], None] | None = None, **more: Any
    ) -> StepResult:
        return run_step(
            self.connected,
            self.declare(script, **more),
            compute or LocalCompute(grace_seconds=1),
            on_line=on_line or self.lines.append,
            scratch_root=self.scratch,
        )

    def write(self, *names: str, output: OutputFileDatasetConfig | None = None, **more: Any) -> Any:
        """Run a step that writes ``new NAME`` to files, and return the reference of its output."""
        output = output or OutputFileDatasetConfig("out").as_upload()
        return self.run(WRITE, arguments=[output, *names], **more).outputs[0]

    def stored(self) -> dict[str, str]:
        """Every file of the default datastore, by path."""
        return {
            str(each.relative_to(self.root)): each.read_text()
            for each in sorted(self.root.rglob("*"))
            if each.is_file() and ".aml_data" not in each.parts
        }

    def states(self) -> list[str]:
        """States of the outputs in the catalog, oldest first."""
        return [each.state for each in reversed(self.connected.catalog.find_outputs())]

    def leftovers(self) -> list[str]:
        """Scratch folders, staging areas, manifests without a committed output, and leases."""
        committed = {each.manifest_path for each in self.connected.catalog.find_outputs(state="committed")}
        found = [str(each) for each in self.scratch.glob("*") if each.name != "lock"]
        for each in (self.root / ".aml_data").rglob("*"):
            if each.is_file() or each.is_symlink():
                path = str(each.relative_to(self.root))
                if path not in committed:
                    found.append(path)
        with self.connected.catalog._database.reading() as connection:
            found += [str(row) for row in connection.exec_driver_sql("SELECT output_id, holder FROM aml_leases")]
        return found


def in_child(work: Callable[[], object]) -> int:
    """Run something in a forked child and return how it ended: its exit code, or minus the signal's number."""
    return os.waitstatus_to_exitcode(os.waitpid(start_child(work), 0)[1])


def start_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def become_ordinary_user() -> None:
    """Go on without root's rights over files: as user 1000 of a namespace, who owns what root owns outside."""
    if os.getuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) != 0:  # CLONE_NEWUSER
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("1000 0 1")
    Path("/proc/self/gid_map").write_text("1000 0 1")
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nothing_published(steps: Steps) -> bool:
    return steps.stored() == {} and set(steps.states()) <= {"abandoned"} and steps.leftovers() == []
