"""The catalog's tables, the same on SQLite and PostgreSQL.

A change here needs a migration in ``migrations/versions`` and a new :data:`HEAD`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    literal_column,
)

HEAD = "0004_retention"
"""The migration this code was written for."""

VERSION_TABLE = "aml_catalog_version"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: takes any time zone, stores and returns UTC; refuses a time without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} carries no time zone.")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _bytewise() -> String:
    # A folder's contents are found as a range of paths, which only a bytewise order makes correct.
    return String().with_variant(String(collation="C"), "postgresql")


metadata = MetaData()

WRITING = literal_column("'writing'", String)
"""Written into the statement, because SQLite uses a partial index only for a condition it can read."""

outputs = Table(
    "aml_outputs",
    metadata,
    Column("id", String, primary_key=True),
    Column("dag_id", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("task_id", String, nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("step_run_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("datastore", String, nullable=False),
    Column("path", _bytewise(), nullable=False),
    Column("mode", String, nullable=False),
    Column("state", String, nullable=False),
    Column("files", BigInteger),
    Column("size_bytes", BigInteger),
    Column("manifest_path", String),
    Column("manifest_digest", String),
    Column("created_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime),
    Column("used_at", UtcDateTime),
    Column("used_elsewhere", Boolean, nullable=False, default=False, server_default=false()),
    Column("retention_days", Integer),
    Column("pin", Text),  # who keeps it, and why
    Column("plan_id", Integer),  # of the plan that deletes or has deleted it
    Column("deleted_at", UtcDateTime),
    Index("aml_outputs_task_instance", "dag_id", "run_id", "task_id", "map_index"),
    Index("aml_outputs_created", "created_at"),
    Index("aml_outputs_dag_created", "dag_id", "created_at"),
    Index("aml_outputs_dag_task_created", "dag_id", "task_id", "created_at"),
    Index("aml_outputs_run_created", "run_id", "created_at"),
    Index("aml_outputs_task_created", "task_id", "created_at"),
    Index("aml_outputs_state_created", "state", "created_at"),
)
Index(
    "aml_outputs_writing_place",
    outputs.c.datastore,
    outputs.c.path,
    sqlite_where=outputs.c.state == WRITING,
    postgresql_where=outputs.c.state == WRITING,
)

leases = Table(
    "aml_leases",
    metadata,
    Column("output_id", String, ForeignKey("aml_outputs.id"), primary_key=True),
    Column("holder", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("aml_leases_holder", "holder"),
)

datasets = Table(
    "aml_datasets",
    metadata,
    Column("name", _bytewise(), primary_key=True),
    Column("latest", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

dataset_versions = Table(
    "aml_dataset_versions",
    metadata,
    Column("name", _bytewise(), ForeignKey("aml_datasets.name"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("dataset_id", String, nullable=False),
    Column("definition", JSON, nullable=False),
    Column("description", Text, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("output_id", String, ForeignKey("aml_outputs.id")),
    Column("content_digest", String),
    Column("producer", JSON(none_as_null=True)),
    Column("created_at", UtcDateTime, nullable=False),
    Index("aml_dataset_versions_output", "output_id"),
    Index("aml_dataset_versions_id", "dataset_id"),
)

datastores = Table(
    "aml_datastores",
    metadata,
    Column("key", String, primary_key=True),  # the name in lower case
    Column("name", String, nullable=False),
    Column("kind", String),  # NULL: a declared datastore, which is here because it was chosen as the default
    Column("options", JSON, nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("changed_by", String, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

history = Table(
    "aml_history",
    metadata,
    # SQLite counts only a column of the exact type INTEGER by itself.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("event", String, nullable=False),
    Column("output_id", String),
    Column("dataset", _bytewise()),
    Column("version", Integer),
    Column("step_run_id", String),
    Column("detail", Text, nullable=False),
    Index("aml_history_output", "output_id", "id"),
    Index("aml_history_dataset", "dataset", "id"),
)

plans = Table(
    "aml_plans",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("state", String, nullable=False),
    Column("decided_by", String),
    Column("decided_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("kept", JSON, nullable=False),  # reason to number of outputs and bytes
    Column("managed_bytes", JSON, nullable=False),  # datastore to bytes of all outputs
)

plan_outputs = Table(
    "aml_plan_outputs",
    metadata,
    Column("plan_id", Integer, ForeignKey("aml_plans.id"), primary_key=True),
    Column("output_id", String, ForeignKey("aml_outputs.id"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("detail", Text, nullable=False),
    Column("deleted_files", BigInteger, nullable=False),
    Column("freed_bytes", BigInteger, nullable=False),
    Column("sweeper", String),  # who has claimed it last
    Index("aml_plan_outputs_output", "output_id"),
)

plan_files = Table(
    "aml_plan_files",
    metadata,
    Column("plan_id", Integer, primary_key=True),
    Column("output_id", String, primary_key=True),
    Column("path", _bytewise(), primary_key=True),
    Column("etag", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("modified", UtcDateTime),
    ForeignKeyConstraint(["plan_id", "output_id"], ["aml_plan_outputs.plan_id", "aml_plan_outputs.output_id"]),
)
