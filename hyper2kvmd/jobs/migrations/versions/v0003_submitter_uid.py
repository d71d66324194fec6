"""The uid of each job's submitter. For jobs that were submitted before, it is looked up by name."""

from __future__ import annotations

import pwd

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NOBODY_AT_ALL = -1


def upgrade() -> None:
    column = sa.Column("submitter_uid", sa.BigInteger, nullable=False, server_default=sa.text(str(NOBODY_AT_ALL)))
    op.add_column("jobs", column)
    jobs = sa.table("jobs", sa.column("submitter"), sa.column("submitter_uid"))
    connection = op.get_bind()
    for name in connection.execute(sa.select(jobs.c.submitter).distinct()).scalars().all():
        connection.execute(sa.update(jobs).where(jobs.c.submitter == name).values(submitter_uid=_uid(name)))


def _uid(name: str) -> int:
    """A submitter without a name was recorded by number."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return int(name) if name.isascii() and name.isdecimal() else NOBODY_AT_ALL
