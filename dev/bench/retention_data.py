"""Outputs of many steps, as the bench of retention has them in its catalogs and in its blob server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.manifest import Manifest, ManifestEntry, manifest_path

FILE_BYTES = 16


class StoredOutput(NamedTuple):
    """An output and the files it has."""

    run: StepRun
    path: str
    files: tuple[str, ...]
    manifest_path: str
    manifest: bytes
    manifest_digest: str

    @property
    def id(self) -> str:
        return f"{self.run.id}/out"


def stored_outputs(outputs: int, files: int, etag: str) -> Iterator[StoredOutput]:
    """Outputs of so many files each, all of which have the etag."""
    names = [f"{number:05}.bin" for number in range(files)]
    for number in range(outputs):
        run = StepRun(dag_id="dag", run_id=f"run{number:06}", task_id="step", unique=str(number))
        path = f"dataset/{run.id}/out"
        manifest = Manifest.of([ManifestEntry(each, FILE_BYTES, "xxh3:0", etag) for each in names])
        inside = tuple(f"{path}/{each}" for each in names)
        yield StoredOutput(run, path, inside, manifest_path(run.id, "out"), manifest.to_bytes(), manifest.digest)
