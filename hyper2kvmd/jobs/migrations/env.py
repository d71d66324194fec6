"""Run by Alembic: applies the schema steps on the connection that `jobs/database.py` hands over."""

from __future__ import annotations

from alembic import context

from hyper2kvmd.jobs.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
