"""Indexes for the spool: files that are not in the folder of their job's final state, and the jobs of one submitter."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MISPLACED = sa.text(
    "spool_path NOT LIKE CASE state WHEN 'succeeded' THEN 'done/%' WHEN 'failed' THEN 'failed/%'"
    " WHEN 'cancelled' THEN 'failed/%' WHEN 'rejected' THEN 'rejected/%' END"
)


def upgrade() -> None:
    op.create_index("jobs_misplaced", "jobs", ["id"], sqlite_where=MISPLACED, postgresql_where=MISPLACED)
    op.create_index("jobs_of_submitter", "jobs", ["submitter", "state", "id"])
