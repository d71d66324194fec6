"""Delays by the uptime of the host, deaths of daemons with a job, and the last look at the clocks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("delay_until", sa.Float))
    op.add_column("jobs", sa.Column("delay_seconds", sa.Float))
    op.add_column("jobs", sa.Column("delay_boot", sa.String(36)))
    op.add_column("jobs", sa.Column("deaths", sa.Integer, nullable=False, server_default="0"))
    op.add_column("queue", sa.Column("clock", sa.Text))
    op.drop_index("jobs_to_claim", table_name="jobs")
    op.create_index(
        "jobs_to_claim", "jobs", ["state", sa.text("priority DESC"), "id", "not_before", "waiting_for", "delay_until"]
    )
