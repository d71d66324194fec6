"""An index of the jobs that failed or were cancelled in `publish`, for which the daemon asks every few seconds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

ENDED_IN_PUBLISH = sa.text("state IN ('failed', 'cancelled') AND stage = 'publish'")


def upgrade() -> None:
    op.create_index(
        "jobs_ended_in_publish",
        "jobs",
        ["stage", "finished"],
        sqlite_where=ENDED_IN_PUBLISH,
        postgresql_where=ENDED_IN_PUBLISH,
    )
