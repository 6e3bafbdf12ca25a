"""Datastores that were registered, beside those that connections declare, and the default one that was chosen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_datastores"
down_revision = "0002_dataset_ids"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aml_datastores",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("is_default", sa.Boolean, nullable=False),
        sa.Column("changed_by", sa.String, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
