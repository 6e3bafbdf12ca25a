"""Datastores that were registered, and which one is the default. No secret is here: options name Airflow connections."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from airflow_aml_data.core.catalog import history
from airflow_aml_data.core.catalog.database import lock_names
from airflow_aml_data.core.catalog.records import HistoryEvent, RegisteredDatastore
from airflow_aml_data.core.catalog.schema import dataset_versions, datastores, outputs
from airflow_aml_data.errors import DatastoreInUse, DatastoreNotFound, InvalidDeclaration

_SHOWN = 3


def register(connection: Connection, new: RegisteredDatastore, *, overwrite: bool, now: datetime) -> None:
    """Add a datastore, or change it; see :meth:`.Catalog.register_datastore`."""
    _lock(connection)
    old = _find(connection, new.name)
    values = {"kind": new.kind, "options": dict(new.options), "changed_by": new.changed_by, "changed_at": now}
    if old is None or old.kind is None:
        connection.execute(delete(datastores).where(datastores.c.key == new.name.lower()))
        is_default = old is not None and old.is_default
        row = {"key": new.name.lower(), "name": new.name, "is_default": is_default, **values}
        connection.execute(insert(datastores).values(row))
        _note(connection, "registered", new.name, f"registered by {new.changed_by} as {new.place}", now=now)
        return
    if not overwrite:
        raise InvalidDeclaration(
            f"Another datastore with the same name already exists: {old.name!r} is {old.place}. Give overwrite=True to change it."
        )
    if old.place != new.place:
        _refuse_in_use(connection, old.name, f"cannot become {new.place}")
    connection.execute(update(datastores).where(datastores.c.key == new.name.lower()).values(values))
    _note(connection, "updated", old.name, f"changed by {new.changed_by} from {old.place} to {new.place}", now=now)


def unregister(connection: Connection, name: str, *, by: str, now: datetime) -> None:
    """Forget a name; see :meth:`.Catalog.unregister_datastore`."""
    _lock(connection)
    old = _find(connection, name)
    if old is None or old.kind is None:
        raise DatastoreNotFound(name, [each.name for each in every(connection) if each.kind])
    if old.is_default:
        raise DatastoreInUse(
            f"Datastore {old.name!r} is the workspace's default and cannot be unregistered. Choose another one first: "
            "workspace.set_default_datastore(name)."
        )
    _refuse_in_use(connection, old.name, "cannot be unregistered")
    connection.execute(delete(datastores).where(datastores.c.key == old.name.lower()))
    _note(connection, "unregistered", old.name, f"unregistered by {by}; its data stays", now=now)


def set_default(connection: Connection, name: str, *, by: str, now: datetime) -> None:
    """Make a datastore, registered or declared, the default; see :meth:`.Catalog.set_default_datastore`."""
    _lock(connection)
    connection.execute(delete(datastores).where(datastores.c.kind.is_(None)))
    connection.execute(update(datastores).values(is_default=False))
    chosen = {"is_default": True, "changed_by": by, "changed_at": now}
    if _find(connection, name) is None:
        connection.execute(insert(datastores).values(key=name.lower(), name=name, options={}, **chosen))
    else:
        connection.execute(update(datastores).where(datastores.c.key == name.lower()).values(**chosen))
    _note(connection, "updated", name, f"made the workspace's default by {by}", now=now)


def every(connection: Connection) -> list[RegisteredDatastore]:
    """All of them, by name."""
    found = connection.execute(select(datastores).order_by(datastores.c.key)).mappings()
    return [_from_row(row) for row in found]


def _refuse_in_use(connection: Connection, name: str, what: str) -> None:
    """Refuse what would put outputs or registered datasets out of reach.

    :raises DatastoreInUse: naming some of them.
    """
    held = outputs.c.state.in_(["writing", "committed"])
    found = select(outputs.c.id).where(outputs.c.datastore == name, held).order_by(outputs.c.id).limit(_SHOWN)
    lying = [f"output {each!r}" for each in connection.scalars(found)]
    versions = dataset_versions.c
    for dataset, version, definition in connection.execute(
        select(versions.name, versions.version, versions.definition).order_by(versions.name, versions.version)
    ):
        if len(lying) >= 2 * _SHOWN:
            break
        if _reads(definition, name):
            lying.append(f"dataset {dataset!r} version {version}")
    if lying:
        raise DatastoreInUse(
            f"Datastore {name!r} {what}: {', '.join(lying)} and perhaps more lie on it and could not be read any more. Unregister the "
            "datasets, and register this place under another name for new data."
        )


def _reads(definition: Any, name: str) -> bool:
    """Whether a definition names the datastore, in its sources or in those of the table it is made of."""
    if isinstance(definition, Mapping):
        return definition.get("datastore") == name or any(_reads(each, name) for each in definition.values())
    return isinstance(definition, list) and any(_reads(each, name) for each in definition)


def _find(connection: Connection, name: str) -> RegisteredDatastore | None:
    row = connection.execute(select(datastores).where(datastores.c.key == name.lower())).mappings().first()
    return None if row is None else _from_row(row)


def _from_row(row: RowMapping) -> RegisteredDatastore:
    return RegisteredDatastore(
        name=row["name"],
        kind=row["kind"],
        options=row["options"],
        is_default=row["is_default"],
        changed_by=row["changed_by"],
    )


def _note(connection: Connection, event: HistoryEvent, name: str, what: str, *, now: datetime) -> None:
    entry = history.entry(event, at=now, detail=f"Datastore {name!r} was {what}.", step_run_id=None)
    history.append(connection, [entry])


def _lock(connection: Connection) -> None:
    lock_names(connection, ["datastores"])
