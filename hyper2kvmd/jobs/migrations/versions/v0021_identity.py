"""The identity of the queue, by which a spool or a state directory of another queue is noticed."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("queue", sa.Column("identity", sa.String(36), nullable=False, server_default=""))
    op.get_bind().execute(sa.text("UPDATE queue SET identity = :identity"), {"identity": str(uuid.uuid4())})
