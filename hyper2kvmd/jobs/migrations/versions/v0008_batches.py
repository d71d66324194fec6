"""Notes about the migration YAML of a job, and the jobs of one spool file that describes several machines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("notes", sa.Text, nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("batch", sa.String(255)))
    op.create_index("ix_jobs_batch", "jobs", ["batch"])
