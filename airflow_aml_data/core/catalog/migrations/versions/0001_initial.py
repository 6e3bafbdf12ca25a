"""Outputs, leases, datasets, dataset versions, history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_BYTEWISE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _create_outputs()
    op.create_table(
        "aml_leases",
        sa.Column("output_id", sa.String, sa.ForeignKey("aml_outputs.id"), primary_key=True),
        sa.Column("holder", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
    )
    op.create_index("aml_leases_holder", "aml_leases", ["holder"])
    _create_datasets()
    op.create_table(
        "aml_history",
        sa.Column("id", _COUNTER, primary_key=True, autoincrement=True),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("output_id", sa.String),
        sa.Column("dataset", _BYTEWISE),
        sa.Column("version", sa.Integer),
        sa.Column("step_run_id", sa.String),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("aml_history_output", "aml_history", ["output_id", "id"])
    op.create_index("aml_history_dataset", "aml_history", ["dataset", "id"])


def _create_outputs() -> None:
    op.create_table(
        "aml_outputs",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("dag_id", sa.String, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("task_id", sa.String, nullable=False),
        sa.Column("map_index", sa.Integer, nullable=False),
        sa.Column("try_number", sa.Integer, nullable=False),
        sa.Column("step_run_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("datastore", sa.String, nullable=False),
        sa.Column("path", _BYTEWISE, nullable=False),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("files", sa.BigInteger),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("manifest_path", sa.String),
        sa.Column("manifest_digest", sa.String),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("changed_at", _MOMENT),
        sa.Column("used_at", _MOMENT),
    )
    for name, columns in {
        "task_instance": ["dag_id", "run_id", "task_id", "map_index"],
        "created": ["created_at"],
        "dag_created": ["dag_id", "created_at"],
        "dag_task_created": ["dag_id", "task_id", "created_at"],
        "run_created": ["run_id", "created_at"],
        "task_created": ["task_id", "created_at"],
        "state_created": ["state", "created_at"],
    }.items():
        op.create_index(f"aml_outputs_{name}", "aml_outputs", columns)
    writing = sa.text("state = 'writing'")
    op.create_index(
        "aml_outputs_writing_place",
        "aml_outputs",
        ["datastore", "path"],
        sqlite_where=writing,
        postgresql_where=writing,
    )


def _create_datasets() -> None:
    op.create_table(
        "aml_datasets",
        sa.Column("name", _BYTEWISE, primary_key=True),
        sa.Column("latest", sa.Integer, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
    )
    op.create_table(
        "aml_dataset_versions",
        sa.Column("name", _BYTEWISE, sa.ForeignKey("aml_datasets.name"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("output_id", sa.String, sa.ForeignKey("aml_outputs.id")),
        sa.Column("producer", sa.JSON),
        sa.Column("created_at", _MOMENT, nullable=False),
    )
    op.create_index("aml_dataset_versions_output", "aml_dataset_versions", ["output_id"])
