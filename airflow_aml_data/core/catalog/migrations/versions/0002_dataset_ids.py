"""An id for each dataset version, and a digest of what its files were."""

from __future__ import annotations

import json
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0002_dataset_ids"
down_revision = "0001_initial"
branch_labels = None
depends_on = None

_versions = sa.table(
    "aml_dataset_versions",
    sa.column("name", sa.String),
    sa.column("version", sa.Integer),
    sa.column("definition", sa.JSON),
    sa.column("dataset_id", sa.String),
)


def upgrade() -> None:
    op.add_column("aml_dataset_versions", sa.Column("dataset_id", sa.String))
    op.add_column("aml_dataset_versions", sa.Column("content_digest", sa.String))
    connection = op.get_bind()
    key = (_versions.c.name, _versions.c.version)
    for name, version, definition in connection.execute(sa.select(*key, _versions.c.definition)).all():
        registered = json.dumps({**definition, "registered": [name, version]}, sort_keys=True)
        connection.execute(
            sa.update(_versions)
            .where(_versions.c.name == name, _versions.c.version == version)
            .values(dataset_id=sha256(registered.encode()).hexdigest()[:32])
        )
    with op.batch_alter_table("aml_dataset_versions") as table:
        table.alter_column("dataset_id", existing_type=sa.String(), nullable=False)
    op.create_index("aml_dataset_versions_id", "aml_dataset_versions", ["dataset_id"])
