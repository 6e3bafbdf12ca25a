"""Dataset versions: numbering, look-up, changes of what describes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, insert, select, update

from airflow_aml_data.core.catalog import history, leases
from airflow_aml_data.core.catalog.database import lock_names
from airflow_aml_data.core.catalog.records import DatasetVersion, HistoryEvent, NewDatasetVersion
from airflow_aml_data.core.catalog.schema import dataset_versions, datasets
from airflow_aml_data.core.identity import StepRun, definition_id
from airflow_aml_data.errors import DatasetExists, DatasetIdNotFound, DatasetNotFound, InvalidDeclaration

_KNOWN_LIMIT = 100
_VERSION_LIMIT = 2**31 - 1  # of the column


def register(
    connection: Connection,
    new: NewDatasetVersion,
    *,
    create_new_version: bool,
    now: datetime,
    least_version: int = 1,
) -> DatasetVersion:
    """Add the next version of a name, or update the latest one when it stands for the same data already.

    Whoever registers or changes the same name waits for this transaction's end.

    :param least_version: Of a version that is added: lower numbers are taken elsewhere.
    :raises DatasetExists: for a known name without ``create_new_version``.
    :raises DataChanged: when the output the dataset reads is not committed.
    """
    if new.output_id is not None:
        leases.check_committed(connection, [new.output_id])
    _lock(connection, new.name)
    latest = find(connection, new.name, None)
    if latest is not None and not create_new_version:
        raise DatasetExists(new.name)
    if latest is not None and _same_data(latest, new):
        return _describe(connection, latest, new.description or latest.description, new.tags or latest.tags, now=now)
    if latest is None:
        version = least_version
        connection.execute(insert(datasets).values(name=new.name, latest=version, created_at=now))
    else:
        version = max(latest.version + 1, least_version)
        connection.execute(update(datasets).where(datasets.c.name == new.name).values(latest=version))
    row = {
        "name": new.name,
        "version": version,
        "dataset_id": definition_id({**new.definition, "registered": [new.name, version]}),
        "definition": dict(new.definition),
        "description": new.description,
        "tags": dict(new.tags),
        "output_id": new.output_id,
        "content_digest": new.content_digest,
        "producer": None if new.producer is None else asdict(new.producer),
        "created_at": now,
    }
    connection.execute(insert(dataset_versions).values(row))
    made = _from_row(row)
    _note(connection, "registered", [made], "registered", by=new.producer, now=now)
    return made


def update_description(
    connection: Connection,
    name: str,
    version: int | None,
    description: str | None,
    tags: Mapping[str, str] | None,
    *,
    now: datetime,
) -> DatasetVersion:
    """Replace what is given of a version's description and tags; see :meth:`.Catalog.update_dataset`."""
    _lock(connection, name)
    old = get(connection, name, version)
    return _describe(
        connection,
        old,
        old.description if description is None else description,
        old.tags if tags is None else tags,
        now=now,
    )


def add_tags(
    connection: Connection, name: str, version: int | None, tags: Mapping[str, str], *, now: datetime
) -> DatasetVersion:
    """Add tags to a version; see :meth:`.Catalog.add_dataset_tags`."""
    _lock(connection, name)
    old = get(connection, name, version)
    for key, value in tags.items():
        if key in old.tags and old.tags[key] != value:
            raise InvalidDeclaration(
                f"Tag {key!r} of dataset {name!r} version {old.version} is {old.tags[key]!r} already, and add_tags() "
                f"does not make it {value!r}. Use remove_tags([{key!r}]) first, or update(tags=...), which replaces all tags."
            )
    return _describe(connection, old, old.description, {**old.tags, **tags}, now=now)


def remove_tags(
    connection: Connection, name: str, version: int | None, keys: Collection[str], *, now: datetime
) -> DatasetVersion:
    """Remove tags from a version; see :meth:`.Catalog.remove_dataset_tags`."""
    _lock(connection, name)
    old = get(connection, name, version)
    kept = {key: value for key, value in old.tags.items() if key not in keys}
    return _describe(connection, old, old.description, kept, now=now)


def unregister_all(connection: Connection, name: str, *, now: datetime) -> None:
    """Forget a name and its versions; see :meth:`.Catalog.unregister_all_versions`."""
    _lock(connection, name)
    gone = all_versions(connection, name)
    connection.execute(delete(dataset_versions).where(dataset_versions.c.name == name))
    connection.execute(delete(datasets).where(datasets.c.name == name))
    _note(connection, "unregistered", gone, "unregistered; its data stays", by=None, now=now)


def check_version(version: int | str | None) -> int | None:
    """Return the version's number, or None for the latest.

    :raises InvalidDeclaration: for anything else. Source: v1, semantics section 11.
    """
    if version is None or version == "latest":
        return None
    if isinstance(version, int) and not isinstance(version, bool):
        return version
    if isinstance(version, str) and re.fullmatch(r"-?[0-9]+", version.strip()):
        return int(version)
    raise InvalidDeclaration(f'Invalid value {version} for version. Version value must be number or "latest".')


def find(connection: Connection, name: str, version: int | None) -> DatasetVersion | None:
    """Return that version of the name, the latest for None; None when there is none."""
    query = select(dataset_versions).where(dataset_versions.c.name == name)
    if version is None:
        latest = select(datasets.c.latest).where(datasets.c.name == name).scalar_subquery()
        query = query.where(dataset_versions.c.version == latest)
    elif 0 < version <= _VERSION_LIMIT:
        query = query.where(dataset_versions.c.version == version)
    else:
        return None
    row = connection.execute(query).mappings().first()
    return None if row is None else _from_row(row)


def get(connection: Connection, name: str, version: int | None) -> DatasetVersion:
    """Return that version of the name.

    :raises DatasetNotFound: with up to 100 names that exist, those next in the alphabet first.
    """
    found = find(connection, name, version)
    if found is None:
        raise DatasetNotFound(name, "latest" if version is None else version, _known(connection, name))
    return found


def get_by_id(connection: Connection, dataset_id: str) -> DatasetVersion:
    """Return the version of that id.

    :raises DatasetIdNotFound: when there is none.
    """
    query = select(dataset_versions).where(dataset_versions.c.dataset_id == dataset_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise DatasetIdNotFound(dataset_id)
    return _from_row(row)


def all_versions(connection: Connection, name: str) -> list[DatasetVersion]:
    """Return every version of a name, 1 first.

    :raises DatasetNotFound: when there is none.
    """
    query = select(dataset_versions).where(dataset_versions.c.name == name).order_by(dataset_versions.c.version)
    found = [_from_row(row) for row in connection.execute(query).mappings()]
    if not found:
        raise DatasetNotFound(name, "latest", _known(connection, name))
    return found


def latest_of_each(connection: Connection) -> list[DatasetVersion]:
    """Return the latest version of every name, by name."""
    same = and_(dataset_versions.c.name == datasets.c.name, dataset_versions.c.version == datasets.c.latest)
    query = select(dataset_versions).join_from(datasets, dataset_versions, same).order_by(datasets.c.name)
    return [_from_row(row) for row in connection.execute(query).mappings()]


def _lock(connection: Connection, name: str) -> None:
    lock_names(connection, [f"dataset {name}"])


def _same_data(known: DatasetVersion, new: NewDatasetVersion) -> bool:
    """Whether a version stands for the same definition and content; content nobody knows equals none."""
    if new.content_digest is None or new.content_digest != known.content_digest:
        return False
    return definition_id(new.definition) == definition_id(known.definition)


def _describe(
    connection: Connection, old: DatasetVersion, description: str, tags: Mapping[str, str], *, now: datetime
) -> DatasetVersion:
    """Give a version this description and these tags; without a difference nothing is written."""
    new = replace(old, description=description, tags=dict(tags))
    changes = []
    if new.description != old.description:
        changes.append(f"description {old.description!r} became {new.description!r}")
    if new.tags != old.tags:
        changes.append(f"tags {old.tags!r} became {new.tags!r}")
    if changes:
        connection.execute(
            update(dataset_versions)
            .where(dataset_versions.c.name == old.name, dataset_versions.c.version == old.version)
            .values(description=new.description, tags=new.tags)
        )
        _note(connection, "updated", [new], "updated: " + ", ".join(changes), by=None, now=now)
    return new


def _note(
    connection: Connection,
    event: HistoryEvent,
    versions: list[DatasetVersion],
    what: str,
    *,
    by: StepRun | None,
    now: datetime,
) -> None:
    history.append(
        connection,
        (
            history.entry(
                event,
                at=now,
                detail=f"Version {each.version} of dataset {each.name!r} {what}.",
                step_run_id=None if by is None else by.id,
                output_id=each.output_id,
                dataset=each.name,
                version=each.version,
            )
            for each in versions
        ),
    )


def _known(connection: Connection, near: str) -> list[str]:
    names = datasets.c.name
    some = select(names).limit(_KNOWN_LIMIT // 2)
    after = connection.scalars(some.where(names >= near).order_by(names))
    before = connection.scalars(some.where(names < near).order_by(names.desc()))
    return [*before, *after]


def _from_row(row: RowMapping | Mapping[str, Any]) -> DatasetVersion:
    values = dict(row)
    if values["producer"] is not None:
        values["producer"] = StepRun(**values["producer"])
    return DatasetVersion(**values)
