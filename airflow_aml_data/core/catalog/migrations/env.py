"""Run by Alembic: migrates over the connection it is handed, inside the caller's transaction."""

from __future__ import annotations

from alembic import context

from airflow_aml_data.core.catalog.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters most things only by copying the table
)
with context.begin_transaction():
    context.run_migrations()
