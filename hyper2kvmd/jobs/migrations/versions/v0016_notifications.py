"""The outbox of notifications, and what their destinations want to know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("destination", sa.String(63), primary_key=True),
        sa.Column("occasion", sa.String(16), primary_key=True),
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("destination", sa.String(63), nullable=False),
        sa.Column("occasion", sa.String(16), nullable=False),
        sa.Column("job_id", sa.Integer),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_try", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_try", sa.DateTime(timezone=True)),
        sa.Column("last_error", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("notifications_to_send", "notifications", ["state", "destination", "next_try"])
    op.create_index("notifications_of_job", "notifications", ["job_id", "occasion", "created"])
