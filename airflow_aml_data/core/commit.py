"""Publish what a script left: the bytes, then the manifest, then one catalog transaction."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from airflow_aml_data.core.catalog import CommittedOutput, NewDatasetVersion, Output
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition
from airflow_aml_data.core.identity import RESERVED_FOLDER, StepRun
from airflow_aml_data.core.in_job.told import ReportedOutput
from airflow_aml_data.core.manifest import LocalFile, Manifest, ManifestEntry, manifest_path, read_local
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import PlannedOutput, StepPlan
from airflow_aml_data.core.publishing import plan_asset, publish_asset
from airflow_aml_data.core.registration import content_digest
from airflow_aml_data.core.storage.base import Placement, StoredFile
from airflow_aml_data.core.storage.files import files_below
from airflow_aml_data.core.transfer import Meter
from airflow_aml_data.core.written import not_readable, nothing_written, written_files
from airflow_aml_data.errors import AmlDataError, OutputLost, StorageError

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


def files_before(workspace: ConnectedWorkspace, plan: StepPlan) -> dict[str, dict[str, StoredFile]]:
    """Output name to the files that are at its destination before the step, by path: of outputs in mount mode that others write to too."""
    return {
        each.name: {stored.path: stored for stored in workspace.storage(each.datastore).list_files(each.path)}
        for each in plan.outputs
        if each.mode == "mount" and not each.config.is_exclusive
    }


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

    def publish(planned: PlannedOutput) -> Manifest:
        local = output_paths[planned.name]
        if planned.config.source:
            staged = workspace.storage(planned.datastore).staging_folder(plan.run.id, planned.name, scratch)
            _copy_to_staging(local, found[planned.name], staged)
            local = staged
        return _publish(workspace, plan.run, planned, local, found[planned.name], existing)

    return _commit(workspace, plan, publish)


def commit_job(
    workspace: ConnectedWorkspace,
    plan: StepPlan,
    reported: Mapping[str, ReportedOutput],
    staged_at: Callable[[PlannedOutput], str | None],
    existing: Mapping[str, Mapping[str, StoredFile]],
    scratch: Path,
) -> list[OutputReference]:
    """Publish all outputs of a step that ran as a job; see :func:`commit_step`.

    What the service has stored at its destination is compared with what the script has left there. The rest comes through this
    machine: what lies elsewhere until it is whole, and an output that the script made a file.

    :param staged_at: Where the service has stored an output; None: at its destination.
    """

    def publish(planned: PlannedOutput) -> Manifest:
        left, elsewhere = reported[planned.name], staged_at(planned)
        if not elsewhere and not left.is_file:
            return _manifest_in_place(workspace, planned, left, existing)
        staged = _fetched(workspace, plan.run, planned, left, elsewhere or planned.path, scratch)
        return _publish(workspace, plan.run, planned, staged, _collect(planned, staged), existing)

    return _commit(workspace, plan, publish)


def _commit(
    workspace: ConnectedWorkspace, plan: StepPlan, publish: Callable[[PlannedOutput], Manifest]
) -> list[OutputReference]:
    """The bytes, then the manifests, then one transaction.

    :param publish: Brings the files of an output to their destination.
    """
    committed: list[CommittedOutput] = []
    for each in plan.outputs:
        manifest = publish(each)
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
) -> Manifest:
    storage = workspace.storage(planned.datastore)
    meter = Meter(f"Output {planned.name!r} ({planned.mode})", len(found))
    if planned.mode == "upload":
        stored = storage.publish(
            run.id,
            planned.name,
            local,
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
    return _manifest(planned, zip(found, etags, strict=True), existing, local)


def _manifest(
    planned: PlannedOutput,
    files: Iterable[tuple[LocalFile, str]],
    existing: Mapping[str, Mapping[str, StoredFile]],
    local: Path,
) -> Manifest:
    """The manifest of files with their etags; those that were there before and have not changed are no part of the output."""
    before = existing.get(planned.name, {})
    entries = [
        ManifestEntry(each.path, each.size_bytes, each.checksum, etag)
        for each, etag in files
        if (was := before.get(_stored_at(planned, each.path))) is None or was.etag != etag  # written by this step run
    ]
    if not entries:
        raise nothing_written(planned.name, local, planned.config.source_globs)
    return Manifest.of(entries)


def _manifest_in_place(
    workspace: ConnectedWorkspace,
    planned: PlannedOutput,
    left: ReportedOutput,
    existing: Mapping[str, Mapping[str, StoredFile]],
) -> Manifest:
    """The manifest of what the service has stored.

    :raises OutputLost: when that is not what the script has left.
    """
    storage = workspace.storage(planned.datastore)
    listed = {each.path: each for each in storage.list_files(planned.path)}
    files = []
    for path, size_bytes, checksum in left.files:
        stored = listed.get(_stored_at(planned, path))
        if stored is None or stored.size_bytes != size_bytes:
            found = "no such file" if stored is None else f"{stored.size_bytes} bytes of it"
            raise OutputLost(
                f"Output {planned.name!r}: the job's script has written {path!r}, {size_bytes} bytes, and datastore {planned.datastore!r} "
                f"has {found} in {planned.path!r}. Something else may write there, or the job has lost it."
            )
        if checksum and stored.checksum.startswith("md5:") and stored.checksum != checksum:
            raise OutputLost(
                f"Output {planned.name!r}: {stored.path!r} on datastore {planned.datastore!r} has another content than the job's script "
                "has written. Something else may write there, or the file was damaged on its way."
            )
        known = checksum or stored.checksum or f"etag:{stored.etag}"
        files.append((LocalFile(path, size_bytes, 0, known), stored.etag))
    log.info("Output %r (%s): %s files, stored by the job.", planned.name, planned.mode, f"{len(files):,}")
    return _manifest(planned, files, existing, Path(planned.path))


def _fetched(
    workspace: ConnectedWorkspace,
    run: StepRun,
    planned: PlannedOutput,
    left: ReportedOutput,
    stored_at: str,
    scratch: Path,
) -> Path:
    """A local copy of an output that a job has stored elsewhere than where it belongs; there, nothing of it is left.

    :returns: The folder, or the file that the script made of it.
    """
    storage = workspace.storage(planned.datastore)
    stored = list(
        storage.list_reserved(stored_at)
        if stored_at.startswith(f"{RESERVED_FOLDER}/")
        else storage.list_files(stored_at)
    )
    staged = storage.staging_folder(run.id, planned.name, scratch)
    storage.download(
        [Placement(each, each.path.removeprefix(f"{stored_at}/")) for each in stored], staged, lambda *_: None
    )
    if len(stored) != len(left.files):
        raise OutputLost(
            f"Output {planned.name!r}: the job has left {len(left.files)} files, and {len(stored)} are at {stored_at!r} on datastore "
            f"{planned.datastore!r}."
        )
    if not left.is_file:
        return staged
    storage.delete_files([each.path for each in stored])
    return staged / str(left.files[0][0])


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
    is_own, globs = bool(planned.config.source), planned.config.source_globs
    paths = written_files(planned.name, local, is_own=is_own, source_globs=globs)
    try:
        return read_local(paths)
    except PermissionError as error:
        raise not_readable(planned.name, error) from error


def _copy_to_staging(source: Path, found: Sequence[LocalFile], staging: Path) -> None:
    for each in found:
        target = staging / each.path if each.path else staging
        if not each.path:
            staging.rmdir()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / each.path if each.path else source, target)
