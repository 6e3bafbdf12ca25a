"""Publish what a script left: the bytes, then the manifest, then one catalog transaction."""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from airflow_aml_data.core.catalog import CommittedOutput, NewDatasetVersion, Output
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.manifest import LocalFile, Manifest, ManifestEntry, manifest_path, read_local
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import PlannedOutput, StepPlan
from airflow_aml_data.core.publishing import plan_asset, publish_asset
from airflow_aml_data.core.registration import content_digest
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.core.storage.files import files_below
from airflow_aml_data.core.transfer import Meter
from airflow_aml_data.errors import AmlDataError, OutputUnusable, StorageError

log = logging.getLogger(__name__)


def discard(workspace: ConnectedWorkspace, abandoned: Output) -> None:
    """Remove the bytes of an output that the catalog says is abandoned. Files closed in mount mode stay."""
    storage = workspace.storage(abandoned.datastore)
    storage.delete_files([manifest_path(abandoned.step_run_id, abandoned.name)])
    if abandoned.mode == "upload":
        storage.take_back(
            abandoned.step_run_id,
            abandoned.name,
            abandoned.path,
            exclusive=abandoned.step_run_id in abandoned.path,
        )


def drop_staging(workspace: ConnectedWorkspace, step_run_id: str, committed: PlannedOutput | Output) -> None:
    """Remove what was needed to undo the publication of an output that is committed by now."""
    if committed.mode == "upload":
        try:
            workspace.storage(committed.datastore).drop_staging(step_run_id, committed.name)
        except AmlDataError as error:  # the output is committed: nothing may fail the step any more
            log.warning("The staging area of output %r stays: %s", committed.name, error)


def store_mounted(
    workspace: ConnectedWorkspace, plan: StepPlan, names: Sequence[str], output_paths: Mapping[str, Path]
) -> None:
    """Store what the script, failed or not, left of those outputs in mount mode that could not be mounted."""
    for each in plan.outputs:
        if each.name in names:
            storage = workspace.storage(each.datastore)
            local = output_paths[each.name]
            files = [file for file in files_below(local) if not file.is_symlink() and file.is_file()]
            meter = Meter(f"Output {each.name!r} (mount)", len(files))
            places = [(file, _stored_at(each, file.relative_to(local).as_posix())) for file in files]
            storage.upload(places, overwrite=True, progress=meter)
            meter.done()


def commit_step(
    workspace: ConnectedWorkspace,
    plan: StepPlan,
    output_paths: Mapping[str, Path],
    existing: Mapping[str, Mapping[str, StoredFile]],
    scratch: Path,
) -> list[OutputReference]:
    """Publish all outputs of a step; when it raises, the caller abandons them in the catalog and discards their bytes.

    :param output_paths: Output name to the local path the script wrote to.
    :param existing: Output name to the files that were at its destination before, by path (mount mode).
    :param scratch: The step run's private folder on this machine.
    :returns: One reference for each output, in the plan's order.
    :raises OutputUnusable: when an output holds nothing, or something that cannot be stored.
    :raises OutputConflict: when a destination holds a file of the same name, in upload mode without ``overwrite``.
    """
    found = {each.name: _collect(each, output_paths[each.name]) for each in plan.outputs}
    committed: list[CommittedOutput] = []
    for each in plan.outputs:
        manifest = _publish(workspace, plan.run, each, output_paths[each.name], found[each.name], existing, scratch)
        where = manifest_path(plan.run.id, each.name)
        workspace.storage(each.datastore).write_bytes(where, manifest.to_bytes())
        committed.append(
            CommittedOutput(
                name=each.name,
                files=len(manifest.entries),
                size_bytes=manifest.size_bytes,
                manifest_path=where,
                manifest_digest=manifest.digest,
                changed_at=workspace.catalog.now(),
            )
        )
    references = _record(workspace, plan, committed)
    for each in plan.outputs:
        drop_staging(workspace, plan.run.id, each)
    return references


def _publish(
    workspace: ConnectedWorkspace,
    run: StepRun,
    planned: PlannedOutput,
    local: Path,
    found: Sequence[LocalFile],
    existing: Mapping[str, Mapping[str, StoredFile]],
    scratch: Path,
) -> Manifest:
    storage = workspace.storage(planned.datastore)
    meter = Meter(f"Output {planned.name!r} ({planned.mode})", len(found))
    if planned.mode == "upload":
        staged = local
        if planned.config.source:
            staged = storage.staging_folder(run.id, planned.name, scratch)
            _copy_to_staging(local, found, staged)
        stored = storage.publish(
            run.id,
            planned.name,
            staged,
            found,
            planned.path,
            overwrite=planned.config.overwrite or planned.config.mode == "mount",
            exclusive=planned.config.is_exclusive,
            progress=meter,
        )
        etags = [each.etag for each in stored]
    else:
        listed = {each.path: each for each in storage.list_files(planned.path)}
        etags = [_stored(planned, each, listed).etag for each in found]
        meter(len(found), sum(each.size_bytes for each in found))
    meter.done()
    before = existing.get(planned.name, {})
    entries = [
        ManifestEntry(each.path, each.size_bytes, each.checksum, etag)
        for each, etag in zip(found, etags, strict=True)
        if (was := before.get(_stored_at(planned, each.path))) is None or was.etag != etag  # written by this step run
    ]
    if not entries:
        raise _nothing_written(planned, local)
    return Manifest.of(entries)


def _stored(planned: PlannedOutput, file: LocalFile, listed: Mapping[str, StoredFile]) -> StoredFile:
    """What the store has of a file that was written in mount mode."""
    stored = listed.get(_stored_at(planned, file.path))
    if stored is None or stored.size_bytes != file.size_bytes:
        raise StorageError(
            f"Output {planned.name!r}: {file.path or planned.path!r} has {file.size_bytes} bytes, and datastore "
            f"{planned.datastore!r} has {'no such file' if stored is None else f'{stored.size_bytes} bytes of it'}. "
            "Something else may write there."
        )
    return stored


def _stored_at(planned: PlannedOutput, path: str) -> str:
    return planned.path if path in ("", ".") else f"{planned.path}/{path}"


def _record(
    workspace: ConnectedWorkspace, plan: StepPlan, committed: Sequence[CommittedOutput]
) -> list[OutputReference]:
    run = plan.run
    references = [
        _reference(workspace, run, planned, done) for planned, done in zip(plan.outputs, committed, strict=True)
    ]
    registrations = [
        NewDatasetVersion(
            name=registration.name,
            definition=definition.to_json(),
            description=registration.description,
            tags=registration.tags,
            output_id=reference.output_id,
            content_digest=content_digest(workspace, definition),
            producer=run,
        )
        for planned, reference in zip(plan.outputs, references, strict=True)
        if (registration := planned.config.registration)
        and (definition := planned.config.dataset_of([reference]).definition(workspace, run.run_key))
    ]
    assets = [plan_asset(workspace, each.name, Definition.from_json(each.definition)) for each in registrations]
    least = {new.name: asset.least_version for new, asset in zip(registrations, assets, strict=True) if asset}
    versions = workspace.catalog.commit_outputs(run, committed, registrations, least_versions=least)
    for version, asset in zip(versions, assets, strict=True):
        if asset:
            publish_asset(workspace, version, asset)
    made = iter(versions)
    return [
        replace(each, dataset=version.name, dataset_version=version.version)
        if planned.config.registration and (version := next(made))
        else each
        for planned, each in zip(plan.outputs, references, strict=True)
    ]


def _reference(
    workspace: ConnectedWorkspace, run: StepRun, planned: PlannedOutput, done: CommittedOutput
) -> OutputReference:
    return OutputReference(
        name=planned.name,
        conn_id=workspace.config.name,
        datastore=planned.datastore,
        path=planned.path,
        files=done.files,
        size_bytes=done.size_bytes,
        output_id=f"{run.id}/{planned.name}",
        manifest=done.manifest_path,
        manifest_digest=done.manifest_digest,
        dag_id=run.dag_id,
        run_id=run.run_id,
        task_id=run.task_id,
        map_index=run.map_index,
        try_number=run.try_number,
    )


def _collect(planned: PlannedOutput, local: Path) -> list[LocalFile]:
    """Everything the script left in one output, sorted by path, with checksums."""
    globs = planned.config.source_globs
    try:
        if local.is_symlink() and not planned.config.source:
            raise OutputUnusable(
                f"Output {planned.name!r}: the script put a symbolic link in the place of its output folder {local}. What lies "
                "outside the output folder is not stored: copy it there."
            )
        if local.is_file():
            paths = [""]
        elif local.is_dir():
            paths = sorted(_regular_files(planned, str(local), ""))
        else:
            raise OutputUnusable(
                f"Output {planned.name!r}: the script removed its output folder {local}. "
                "It may empty the folder, but must leave the results in it."
            )
        if globs is not None:
            paths = [each for each in paths if any(fnmatch.fnmatchcase(f"{local}/{each}", glob) for glob in globs)]
        found = read_local([(each, f"{local}/{each}" if each else str(local)) for each in paths])
    except PermissionError as error:
        raise OutputUnusable(
            f"Output {planned.name!r}: {error.filename!r} cannot be read. The script must leave its files readable."
        ) from error
    if not found:
        raise _nothing_written(planned, local)
    return found


def _nothing_written(planned: PlannedOutput, local: Path) -> OutputUnusable:
    globs = planned.config.source_globs
    return OutputUnusable(
        f"Output {planned.name!r} holds no file"
        + (f" that matches source_globs {list(globs)!r}" if globs else "")
        + f". The script must write to the path it is given, {local}: the argument that stands for the output, or "
        f"Run.get_context().output_datasets[{planned.name!r}]. Nothing of this step was published."
    )


def _regular_files(planned: PlannedOutput, root: str, inner: str) -> Iterator[str]:
    """The paths of all files below ``root``, relative to it. Text all the way: there may be 100,000."""
    with os.scandir(f"{root}/{inner}") as entries:
        for entry in entries:
            path = f"{inner}{entry.name}"
            if entry.is_symlink():
                _check_link(planned.name, Path(root), Path(entry.path))
                if not planned.config.source:  # the author's own folder stays as it is
                    target = os.path.realpath(entry.path)
                    Path(entry.path).unlink()
                    shutil.copy2(target, entry.path)
                yield path
            elif entry.is_dir():
                yield from _regular_files(planned, root, f"{path}/")
            elif entry.is_file():
                yield path
            else:
                raise OutputUnusable(
                    f"Output {planned.name!r}: {path!r} is a device, socket or pipe, which cannot be stored. "
                    "Remove it in the script."
                )


def _check_link(name: str, root: Path, link: Path) -> None:
    """Refuse a symbolic link to anything but a file of the output."""
    target = Path(os.path.realpath(link))
    if not target.is_relative_to(os.path.realpath(root)) or not target.is_file():
        raise OutputUnusable(
            f"Output {name!r}: {str(link.relative_to(root))!r} is a symbolic link to {str(link.readlink())!r}, which is not a file "
            "inside the output. What lies outside the output folder is not stored: copy it there."
        )


def _copy_to_staging(source: Path, found: Sequence[LocalFile], staging: Path) -> None:
    for each in found:
        target = staging / each.path if each.path else staging
        if not each.path:
            staging.rmdir()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / each.path if each.path else source, target)
