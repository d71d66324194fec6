"""Jobs that wait for others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dependencies",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("needs", sa.Integer, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_dependencies_needs", "dependencies", ["needs"])
    op.create_index("batches_by_name", "batches", ["name", "id"])
    op.drop_index("jobs_to_claim", table_name="jobs")
    op.create_index("jobs_to_claim", "jobs", ["state", sa.text("priority DESC"), "id", "not_before", "waiting_for"])
