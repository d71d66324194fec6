"""Moves of spool files, on record before they are made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "moves",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("source", sa.LargeBinary, nullable=False),
        sa.Column("target", sa.LargeBinary),
        sa.Column("job_id", sa.Integer),
        sa.Column("ending", sa.String(255), nullable=False, server_default=""),
        sqlite_autoincrement=True,
    )
