"""Dataset versions: numbering, look-up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, insert, select, update

from airflow_aml_data.core.catalog import history, leases
from airflow_aml_data.core.catalog.records import DatasetVersion, NewDatasetVersion
from airflow_aml_data.core.catalog.schema import dataset_versions, datasets
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.errors import DatasetExists, DatasetNotFound, InvalidDeclaration

_KNOWN_LIMIT = 100
_VERSION_LIMIT = 2**31 - 1  # of the column


def register(
    connection: Connection, new: NewDatasetVersion, *, create_new_version: bool, now: datetime
) -> DatasetVersion:
    """Add the next version of a name; whoever registers the same name waits for this transaction's end.

    :raises DatasetExists: for a known name without ``create_new_version``.
    :raises DataChanged: when the output the dataset reads is not committed.
    """
    if new.output_id is not None:
        leases.check_committed(connection, [new.output_id])
    first = leases.inserting(connection, datasets).values(name=new.name, latest=1, created_at=now)
    first = first.on_conflict_do_nothing(index_elements=["name"]).execution_options(preserve_rowcount=True)
    if connection.execute(first).rowcount == 0:
        if not create_new_version:
            raise DatasetExists(new.name)
        connection.execute(update(datasets).where(datasets.c.name == new.name).values(latest=datasets.c.latest + 1))
    version = connection.scalars(select(datasets.c.latest).where(datasets.c.name == new.name)).one()
    row = {
        "name": new.name,
        "version": version,
        "definition": dict(new.definition),
        "description": new.description,
        "tags": dict(new.tags),
        "output_id": new.output_id,
        "producer": None if new.producer is None else asdict(new.producer),
        "created_at": now,
    }
    connection.execute(insert(dataset_versions).values(row))
    step_run_id = None if new.producer is None else new.producer.id
    history.append(
        connection,
        [
            history.entry(
                "registered",
                at=now,
                detail=f"Version {version} of dataset {new.name!r} registered.",
                step_run_id=step_run_id,
                output_id=new.output_id,
                dataset=new.name,
                version=version,
            )
        ],
    )
    return _from_row(row)


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


def latest_of_each(connection: Connection) -> list[DatasetVersion]:
    """Return the latest version of every name, by name."""
    same = and_(dataset_versions.c.name == datasets.c.name, dataset_versions.c.version == datasets.c.latest)
    query = select(dataset_versions).join_from(datasets, dataset_versions, same).order_by(datasets.c.name)
    return [_from_row(row) for row in connection.execute(query).mappings()]


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
