"""The catalog as the rest of the package sees it: one transaction per call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from airflow_aml_data.core.catalog import datasets, datastores, history, inventory, leases, lifecycle, plans
from airflow_aml_data.core.catalog.database import Database
from airflow_aml_data.core.catalog.records import (
    Candidate,
    Claim,
    CommittedOutput,
    DatasetVersion,
    FinishedDeletion,
    HistoryEntry,
    KnownOutput,
    NewDatasetVersion,
    NewOutput,
    Output,
    OutputState,
    Plan,
    PlanEntry,
    PlannedDeletion,
    PlannedFile,
    PlanState,
    RegisteredDatastore,
    RegisteredPlace,
    UnknownFiles,
)
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.errors import DataChanged


def utc_now() -> datetime:
    """Return this moment, in UTC."""
    return datetime.now(UTC)


class Catalog:
    """Dataset versions, outputs with their states, leases and history, in SQLite or PostgreSQL.

    Making one does no I/O; the first call creates the database's tables. Any number of processes may use
    one database at a time. Each call is one transaction: all of it happens, or nothing. It may be called
    from several threads and after a fork, since no connection outlives a call.

    Whatever a retry may cure (a locked file, a lost server) is :exc:`.StorageError`; an address or a file
    that cannot work is :exc:`.InvalidConfiguration`. No text of either holds the password.

    :param url: ``sqlite:////absolute/path/catalog.db`` (on a local disk: SQLite's write-ahead log does not
        work over a network) or ``postgresql://user:password@host:5432/database``.
    :param now: The clock. Leases are compared across machines, so their clocks must agree to a few seconds.
    :raises InvalidConfiguration: for an address that no catalog can have.
    """

    def __init__(self, url: str, *, now: Callable[[], datetime] = utc_now) -> None:
        self._database = Database(url)
        self._now = now

    def __repr__(self) -> str:
        return f"Catalog({self._database.place!r})"

    def now(self) -> datetime:
        """This moment by the catalog's clock."""
        return self._now()

    def check(self) -> str:
        """Connect, migrate if needed, and return one sentence: kind of database, where, schema version.

        :raises InvalidConfiguration: for a database that is not usable as it is configured.
        :raises StorageError: for one that does not answer.
        """
        return self._database.describe()

    def close(self) -> None:
        """Let go of what is held; the catalog can still be used afterwards."""
        self._database.close()

    def begin_outputs(self, run: StepRun, outputs: Sequence[NewOutput], *, lease_seconds: float) -> list[Output]:
        """Claim the places a run is about to write, and return the outputs abandoned for it.

        What earlier tries of the same task are still writing is abandoned. So is what another task was
        writing in the same place, in a folder above it or below it, when its lease has run out. Both are
        returned, so that the caller can remove their bytes; a returned output may lie in the place just
        claimed. Of two runs that claim one place at the same time, one gets it. The same run may repeat the
        same call: it renews the leases.

        :param lease_seconds: How long the claim holds without :meth:`renew_leases`.
        :raises OutputInUse: when another task is writing there; it names who, since when, and what to do.
        :raises StaleTry: when a newer try of the task has begun, or this one has ended.
        :raises InvalidDeclaration: for a name given twice, or an output begun elsewhere before.
        """
        now = self._now()
        with self._database.writing() as connection:
            return lifecycle.begin(connection, run, outputs, now=now, expires_at=now + timedelta(seconds=lease_seconds))

    def commit_outputs(
        self,
        run: StepRun,
        outputs: Sequence[CommittedOutput],
        registrations: Sequence[NewDatasetVersion] = (),
        *,
        least_versions: Mapping[str, int] = MappingProxyType({}),
    ) -> list[DatasetVersion]:
        """Publish what a run has written and register datasets of it; return their versions, in order.

        :param least_versions: Name of a dataset to the least number of its next version; see :meth:`register_dataset`.

        Every registration makes a new version. All outputs are committed and all versions made, or none.
        An output whose lease ran out can be committed as long as nobody has claimed its place.

        :raises StaleTry: when an output is not being written any more, because a newer try or another task
            took over, or because it is committed or abandoned already; nothing changes then.
        :raises InvalidDeclaration: for an output that was never begun, or a name given twice.
        """
        now = self._now()
        by_name = sorted(enumerate(registrations), key=lambda pair: pair[1].name)  # locks in one order
        with self._database.writing() as connection:
            lifecycle.commit(connection, run, outputs, now=now)
            made = [
                (
                    position,
                    datasets.register(
                        connection,
                        new,
                        create_new_version=True,
                        now=now,
                        least_version=least_versions.get(new.name, 1),
                    ),
                )
                for position, new in by_name
            ]
        return [version for _, version in sorted(made, key=lambda pair: pair[0])]

    def abandon_outputs(self, run: StepRun, reason: str) -> list[Output]:
        """Give up what the run is still writing, and end all its leases.

        Committed outputs stay as they are. May be repeated.

        :param reason: For the history: a sentence.
        :returns: The outputs given up, so that the caller can remove their bytes.
        """
        now = self._now()
        with self._database.writing() as connection:
            return lifecycle.abandon(connection, run, reason=reason, now=now)

    def get_output(self, output_id: str) -> Output:
        """Return the output of that id.

        :raises DataChanged: when there is none.
        """
        with self._database.reading() as connection:
            found = lifecycle.get(connection, output_id)
        if found is None:
            raise DataChanged(
                f"Output {output_id!r} is not in the catalog {self._database.place}. "
                "Was the reference made with another catalog?"
            )
        return found

    def find_outputs(
        self,
        *,
        dag_id: str | None = None,
        run_id: str | None = None,
        task_id: str | None = None,
        map_index: int | None = None,
        state: OutputState | None = None,
        datastore: str | None = None,
        limit: int = 100,
    ) -> list[Output]:
        """Return up to ``limit`` outputs that fit all that is given; newest first.

        :param run_id: Airflow's id of the DAG run.
        :param datastore: Its name as the workspace knows it; upper and lower case count.
        """
        with self._database.reading() as connection:
            return lifecycle.find(
                connection,
                dag_id=dag_id,
                run_id=run_id,
                task_id=task_id,
                map_index=map_index,
                state=state,
                datastore=datastore,
                limit=limit,
            )

    def lease_outputs(self, run: StepRun, output_ids: Sequence[str], *, lease_seconds: float) -> None:
        """Keep outputs from being deleted while a run reads them, and note that they were used.

        :param lease_seconds: How long, without :meth:`renew_leases`.
        :raises DataChanged: naming outputs that are unknown or not committed; then none is leased.
        """
        now = self._now()
        with self._database.writing() as connection:
            leases.read(
                connection,
                output_ids,
                run,
                now=now,
                expires_at=now + timedelta(seconds=lease_seconds),
            )

    def check_readable(self, output_ids: Sequence[str]) -> None:
        """Raise when outputs cannot be read.

        :raises DataChanged: naming outputs that are unknown or not committed; as :exc:`.DataDeleted` those that a plan deleted.
        """
        with self._database.reading() as connection:
            leases.check_committed(connection, output_ids)

    def renew_leases(self, run: StepRun, *, lease_seconds: float) -> None:
        """Let every lease of the run end ``lease_seconds`` from now. A run without leases gets none."""
        now = self._now()
        with self._database.writing() as connection:
            leases.renew(connection, holder=run.id, expires_at=now + timedelta(seconds=lease_seconds))

    def release_leases(self, run: StepRun) -> None:
        """End every lease of the run. May be repeated."""
        with self._database.writing() as connection:
            leases.release(connection, holder=run.id)

    def register_dataset(
        self, new: NewDatasetVersion, *, create_new_version: bool, least_version: int = 1
    ) -> DatasetVersion:
        """Register a dataset under the next version of its name: 1, 2, 3 and so on, with gaps only for ``least_version``.

        When the latest version has the same definition and the same content digest, that version is returned and
        none is added; a description and tags given replace its own.

        :param least_version: Lower numbers are taken elsewhere: Azure ML has given them.
        :raises DatasetExists: for a known name without ``create_new_version``.
        :raises DataChanged: when ``new.output_id`` is not a committed output.
        """
        now = self._now()
        with self._database.writing() as connection:
            return datasets.register(
                connection, new, create_new_version=create_new_version, now=now, least_version=least_version
            )

    def get_dataset(self, name: str, version: int | str | None = "latest") -> DatasetVersion:
        """Return a version of a dataset.

        :param version: A number, as int or text; ``"latest"`` or None for the newest.
        :raises DatasetNotFound: with up to 100 names that are registered.
        :raises InvalidDeclaration: for another kind of version.
        """
        number = datasets.check_version(version)
        with self._database.reading() as connection:
            return datasets.get(connection, name, number)

    def get_dataset_by_id(self, dataset_id: str) -> DatasetVersion:
        """Return the dataset version of that id.

        :raises DatasetIdNotFound: when no registered version has it.
        """
        with self._database.reading() as connection:
            return datasets.get_by_id(connection, dataset_id)

    def list_dataset_versions(self, name: str) -> list[DatasetVersion]:
        """Return every version of a dataset, 1 first.

        :raises DatasetNotFound: for an unknown name, with up to 100 names that are registered.
        """
        with self._database.reading() as connection:
            return datasets.all_versions(connection, name)

    def list_datasets(self) -> list[DatasetVersion]:
        """Return the latest version of every dataset, by name."""
        with self._database.reading() as connection:
            return datasets.latest_of_each(connection)

    def update_dataset(
        self,
        name: str,
        version: int | str | None = "latest",
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> DatasetVersion:
        """Replace the description or the tags of one version, and return it.

        :param description: None keeps it, ``""`` clears it.
        :param tags: None keeps them; otherwise they replace all tags, so ``{}`` clears them.
        :raises DatasetNotFound: as :meth:`get_dataset`.
        """
        number, now = datasets.check_version(version), self._now()
        with self._database.writing() as connection:
            return datasets.update_description(connection, name, number, description, tags, now=now)

    def add_dataset_tags(self, name: str, version: int | str | None, tags: Mapping[str, str]) -> DatasetVersion:
        """Add tags to one version, and return it. May be repeated.

        :raises InvalidDeclaration: for a key that has another value already; it names both. Then none is added.
        :raises DatasetNotFound: as :meth:`get_dataset`.
        """
        number, now = datasets.check_version(version), self._now()
        with self._database.writing() as connection:
            return datasets.add_tags(connection, name, number, tags, now=now)

    def remove_dataset_tags(self, name: str, version: int | str | None, keys: Collection[str]) -> DatasetVersion:
        """Remove the tags of these keys from one version, and return it. A key it does not have is no error.

        :raises DatasetNotFound: as :meth:`get_dataset`.
        """
        number, now = datasets.check_version(version), self._now()
        with self._database.writing() as connection:
            return datasets.remove_tags(connection, name, number, keys, now=now)

    def unregister_all_versions(self, name: str) -> None:
        """Forget a name with all its versions; data and history stay. The name is free: its next version is 1.

        :raises DatasetNotFound: for an unknown name.
        """
        now = self._now()
        with self._database.writing() as connection:
            datasets.unregister_all(connection, name, now=now)

    def register_datastore(self, new: RegisteredDatastore, *, overwrite: bool) -> None:
        """Register a datastore, or with ``overwrite`` change the one of that name, whatever its upper and lower case.

        :raises InvalidDeclaration: for a known name without ``overwrite``.
        :raises DatastoreInUse: when it would become another place, and outputs or registered datasets lie on it.
        """
        now = self._now()
        with self._database.writing() as connection:
            datastores.register(connection, new, overwrite=overwrite, now=now)

    def unregister_datastore(self, name: str, *, by: str) -> None:
        """Forget a registered datastore; its data stays.

        :param by: Who: a step run or a user.
        :raises DatastoreNotFound: for a name nobody registered.
        :raises DatastoreInUse: while it is the default, or outputs or registered datasets lie on it.
        """
        now = self._now()
        with self._database.writing() as connection:
            datastores.unregister(connection, name, by=by, now=now)

    def set_default_datastore(self, name: str, *, by: str) -> None:
        """Make a datastore the workspace's default, before that of the workspace's connection."""
        now = self._now()
        with self._database.writing() as connection:
            datastores.set_default(connection, name, by=by, now=now)

    def list_datastores(self) -> list[RegisteredDatastore]:
        """Registered datastores, and the declared one that was made the default. A catalog nobody has used yet is not made for it."""
        if not self._database.may_exist:
            return []
        with self._database.reading() as connection:
            return datastores.every(connection)

    def pin_output(self, output_id: str, *, by: str, reason: str) -> None:
        """Keep an output until :meth:`unpin_output`, whatever its age.

        :raises DataChanged: for one that is not there, such as a deleted one.
        """
        now = self._now()
        with self._database.writing() as connection:
            plans.check_pinnable(connection, output_id)
            plans.pin(connection, output_id, f"{by}: {reason}" if reason else by, now=now)

    def unpin_output(self, output_id: str, *, by: str) -> None:
        """Let an output go when its time has come. May be repeated."""
        now = self._now()
        with self._database.writing() as connection:
            plans.unpin(connection, output_id, by, now=now)

    @contextmanager
    def candidates(
        self,
        datastores: Sequence[str] | None,
        *,
        changed_before: datetime,
        begun_before: datetime,
        run: tuple[str, str] | None = None,
    ) -> Iterator[Iterator[Candidate]]:
        """Outputs that may be old enough to go: streamed, in one consistent view.

        :param datastores: Where; None: anywhere.
        :param changed_before: When whole outputs were last written and read.
        :param begun_before: When attempts that came to nothing began.
        :param run: Only those of one DAG run: DAG id, run id.
        """
        now = self._now()
        with self._database.reading() as connection:
            yield plans.candidates(
                connection,
                datastores=datastores,
                changed_before=changed_before,
                begun_before=begun_before,
                run=run,
                now=now,
            )

    def used_of_late(self, datastores: Sequence[str], *, changed_before: datetime) -> list[int]:
        """How many outputs were last written before a moment and read since, and their bytes."""
        with self._database.reading() as connection:
            return plans.used_of_late(connection, datastores, changed_before=changed_before)

    def registered_places(self) -> list[RegisteredPlace]:
        """What registered datasets read."""
        with self._database.reading() as connection:
            return plans.registered_places(connection)

    @contextmanager
    def known_outputs(self) -> Iterator[Iterator[KnownOutput]]:
        """Every output that is not deleted: streamed, in one consistent view."""
        with self._database.reading() as connection:
            yield inventory.known(connection)

    def note_inventory(
        self,
        *,
        unknown: Sequence[UnknownFiles],
        missing: Sequence[str],
        found: Sequence[str],
        gone: Sequence[str],
    ) -> None:
        """Note what a look at a store has shown.

        :param unknown: Files that no output accounts for. They become outputs in state ``unknown``, which plans may name.
        :param missing: Ids of committed outputs whose files are gone: nobody can read them any more.
        :param found: Ids of missing outputs that are there again.
        :param gone: Ids of unknown outputs that are not there any more.
        """
        now = self._now()
        with self._database.writing() as connection:
            inventory.adopt(connection, unknown, now=now)
            inventory.move(connection, missing, before="committed", after="missing", now=now)
            inventory.move(connection, found, before="missing", after="committed", now=now)
            inventory.move(connection, gone, before="unknown", after="missing", now=now)

    def managed_bytes(self) -> dict[str, int]:
        """Datastore to the bytes of its committed outputs."""
        with self._database.reading() as connection:
            return plans.managed_bytes(connection)

    def bytes_by_age(self, datastores: Sequence[str], days: Sequence[int]) -> list[int]:
        """Bytes of committed outputs by days since their last change: up to each of some numbers of days, and beyond the last."""
        now = self._now()
        with self._database.reading() as connection:
            return plans.bytes_by_age(connection, datastores, days, now=now)

    def create_plan(
        self,
        planned: Sequence[PlannedDeletion],
        *,
        as_of: datetime,
        by: str,
        settings: Mapping[str, Any],
        kept: Mapping[str, Sequence[int]],
        managed: Mapping[str, int],
        stopped: bool,
    ) -> Plan:
        """Write a deletion plan down; see :class:`.Plan`.

        :param as_of: When planning began: what has been registered since is looked at again before anything is deleted.
        """
        with self._database.writing() as connection:
            return plans.create(
                connection,
                by=by,
                settings=settings,
                state="stopped" if stopped else "planned",
                kept=kept,
                managed=managed,
                planned=planned,
                now=as_of,
            )

    def get_plan(self, number: int) -> Plan:
        """Return a plan.

        :raises InvalidDeclaration: for a number that no plan has.
        """
        with self._database.reading() as connection:
            return plans.get(connection, number)

    def find_plans(self, *, state: PlanState | None = None, by: str | None = None, limit: int = 100) -> list[Plan]:
        """Return up to ``limit`` plans that fit all that is given, newest first.

        :param by: Who asked for them.
        """
        with self._database.reading() as connection:
            return plans.find(connection, state=state, by=by, limit=limit)

    def plan_entries(self, number: int) -> list[PlanEntry]:
        """The outputs of a plan, what became of each, and where they are; the largest first."""
        with self._database.reading() as connection:
            return plans.entries(connection, number)

    def planned_files(self, number: int, output_ids: Sequence[str]) -> dict[str, list[PlannedFile]]:
        """The files of some outputs of a plan: output id to them, by path."""
        with self._database.reading() as connection:
            return plans.files_of(connection, number, output_ids)

    def decide_plan(
        self, number: int, *, approved: bool, by: str, is_person: bool = True, keep: Sequence[str] = ()
    ) -> Plan:
        """Approve or reject a plan.

        :param is_person: False: a program decides, which may not let files go that no step accounts for; they are struck out.
        :param keep: Ids of outputs to strike out of it.
        :raises PlanNotReady: for a plan that was stopped, or decided on before.
        :raises InvalidDeclaration: for an output that the plan does not hold.
        """
        now = self._now()
        with self._database.writing() as connection:
            return plans.decide(connection, number, approved=approved, by=by, is_person=is_person, keep=keep, now=now)

    def claim_for_deletion(self, number: int, output_ids: Sequence[str], why_kept: plans.Judge, *, by: str) -> Claim:
        """Take outputs of an approved plan out of everybody's reach, each judged again; nobody can lease them from then on.

        May be repeated, and by another sweep of the plan: it takes over what was claimed before.

        :param why_kept: Takes what has been registered since planning began; returns what says of an output, as it is now, why it
            stays, or an empty text.
        :param by: An id of the sweep.
        :raises PlanNotReady: for a plan that is not approved.
        """
        now = self._now()
        with self._database.writing() as connection:
            return plans.claim(connection, number, output_ids, by=by, why_kept=why_kept, now=now)

    def finish_deletion(self, number: int, done: Sequence[FinishedDeletion], *, by: str) -> None:
        """Note what was deleted of claimed outputs, unless another sweep has taken them over. May be repeated: the first call counts.

        :param by: The id of the sweep.
        """
        now = self._now()
        with self._database.writing() as connection:
            plans.finish(connection, number, done, by=by, now=now)

    def end_plan(self, number: int) -> Plan:
        """Close a plan of which nothing is left to do, and return it."""
        now = self._now()
        with self._database.writing() as connection:
            return plans.end(connection, number, now=now)

    def history(
        self, *, output_id: str | None = None, dataset: str | None = None, limit: int = 100
    ) -> list[HistoryEntry]:
        """Return up to ``limit`` entries of an output, a dataset, or everything; newest first."""
        with self._database.reading() as connection:
            return history.read(connection, output_id=output_id, dataset=dataset, limit=limit)
