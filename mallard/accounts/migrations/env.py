"""What Alembic runs to migrate: on the caller's connection, within the caller's transaction."""

from __future__ import annotations

from alembic import context

from mallard.accounts.migrations import VERSION_TABLE
from mallard.accounts.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a table by making it again
)
with context.begin_transaction():
    context.run_migrations()
