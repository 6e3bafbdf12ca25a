"""How long each output is kept, who keeps it, and plans: exactly what is to be deleted, and what became of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_retention"
down_revision = "0003_datastores"
branch_labels = None
depends_on = None


def upgrade() -> None:
    elsewhere = sa.Column("used_elsewhere", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("aml_outputs", elsewhere)
    op.add_column("aml_outputs", sa.Column("retention_days", sa.Integer))
    op.add_column("aml_outputs", sa.Column("pin", sa.Text))
    op.add_column("aml_outputs", sa.Column("plan_id", sa.Integer))
    op.add_column("aml_outputs", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.create_table(
        "aml_plans",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("decided_by", sa.String),
        sa.Column("decided_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("kept", sa.JSON, nullable=False),
        sa.Column("managed_bytes", sa.JSON, nullable=False),
    )
    op.create_table(
        "aml_plan_outputs",
        sa.Column("plan_id", sa.Integer, sa.ForeignKey("aml_plans.id"), primary_key=True),
        sa.Column("output_id", sa.String, sa.ForeignKey("aml_outputs.id"), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("deleted_files", sa.BigInteger, nullable=False),
        sa.Column("freed_bytes", sa.BigInteger, nullable=False),
        sa.Column("sweeper", sa.String),
    )
    op.create_index("aml_plan_outputs_output", "aml_plan_outputs", ["output_id"])
    op.create_table(
        "aml_plan_files",
        sa.Column("plan_id", sa.Integer, primary_key=True),
        sa.Column("output_id", sa.String, primary_key=True),
        sa.Column("path", sa.String().with_variant(sa.String(collation="C"), "postgresql"), primary_key=True),
        sa.Column("etag", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("modified", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["plan_id", "output_id"], ["aml_plan_outputs.plan_id", "aml_plan_outputs.output_id"]),
    )
