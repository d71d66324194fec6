"""The directories of each job's sources, and indexes that answer counts by several filters alone."""

from __future__ import annotations

import json
from pathlib import PurePath

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

KEYS = ("vmdk", "vmx", "ovf", "ova", "libvirt_xml")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("sources", sa.Text, nullable=False, server_default="[]"))
    connection = op.get_bind()
    startable = "state NOT IN ('succeeded', 'rejected') AND migration IS NOT NULL"
    rows = connection.execute(sa.text(f"SELECT id, migration FROM jobs WHERE {startable}")).all()  # noqa: S608
    fill = sa.text("UPDATE jobs SET sources = :sources WHERE id = :id")
    for row in rows:
        connection.execute(fill, {"id": row.id, "sources": _sources(json.loads(row.migration))})
    op.drop_index("jobs_by_state", table_name="jobs")
    op.create_index("jobs_by_state", "jobs", ["state", "id", "finished", "warnings"])
    op.create_index("jobs_of_uid_by_state", "jobs", ["submitter_uid", "state", "id", "finished", "warnings"])


def _sources(migration: dict[str, object]) -> str:
    given = (migration.get(key) for key in KEYS)
    paths = [path for one in given if one for path in (one if isinstance(one, list) else [one])]
    return json.dumps(sorted({str(PurePath(str(path)).parent) for path in paths}))
