"""Batches with names, reasons for waiting, warnings as a column, work by the hour, and indexes for lists."""

from __future__ import annotations

from pathlib import PurePath

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEXES = {
    "jobs_to_claim": ("state", sa.text("priority DESC"), "id", "not_before"),
    "jobs_by_state": ("state", "id"),
    "jobs_by_end": ("state", "finished", "id"),
    "jobs_by_finish": ("finished", "id"),
    "jobs_by_name": ("vm_name", "id"),
    "jobs_of_batch": ("batch_id", "state", "finished", "warnings"),
    "jobs_of_uid": ("submitter_uid", "id"),
}
WARNED = sa.text("warnings > 0")
RETRIED = sa.text("spool_path LIKE 'retried/%'")


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("submitter", sa.String(255), nullable=False),
        sa.Column("submitter_uid", sa.BigInteger, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("batches_of_submitter", "batches", ["submitter_uid", "name", "id"])
    op.create_table(
        "work",
        sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("bytes_read", "bytes_written")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("succeeded", "failed")),
    )
    op.drop_index("ix_jobs_batch", table_name="jobs")
    op.drop_index("jobs_to_claim", table_name="jobs")
    op.execute("ALTER TABLE jobs RENAME COLUMN batch TO spool_group")
    op.add_column("jobs", sa.Column("batch_id", sa.Integer))
    op.add_column("jobs", sa.Column("warnings", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("waiting_for", sa.String(16)))
    op.create_index("ix_jobs_spool_group", "jobs", ["spool_group"])
    _fill()
    for name, columns in INDEXES.items():
        op.create_index(name, "jobs", list(columns))
    op.create_index("jobs_with_warnings", "jobs", ["id"], sqlite_where=WARNED, postgresql_where=WARNED)
    op.create_index("jobs_retried", "jobs", ["id"], sqlite_where=RETRIED, postgresql_where=RETRIED)


def _fill() -> None:
    op.execute(
        "UPDATE jobs SET warnings = (SELECT count(DISTINCT message) FROM events"
        " WHERE job_id = jobs.id AND kind = 'warned') WHERE id IN (SELECT job_id FROM events WHERE kind = 'warned')"
    )
    op.execute(
        "UPDATE jobs SET waiting_for = CASE WHEN state = 'held' THEN 'operator' WHEN problems = '[]' THEN 'space'"
        " ELSE 'retry' END WHERE state = 'held' OR state = 'queued' AND not_before IS NOT NULL"
    )
    connection = op.get_bind()
    groups = connection.execute(
        sa.text(
            "SELECT j.spool_group, j.spool_name, j.submitter, j.submitter_uid, j.created FROM jobs j"
            " JOIN (SELECT min(id) AS first FROM jobs WHERE spool_group IS NOT NULL GROUP BY spool_group) g"
            " ON j.id = g.first ORDER BY j.id"
        )
    ).all()
    insert = sa.text(
        "INSERT INTO batches (name, submitter, submitter_uid, created) VALUES (:name, :submitter, :uid, :created)"
        " RETURNING id"
    )
    fill = sa.text("UPDATE jobs SET batch_id = :id WHERE spool_group = :spool_group")
    for group in groups:
        values = {"submitter": group.submitter, "uid": group.submitter_uid, "created": group.created}
        name = PurePath(group.spool_name or group.spool_group).stem
        number = connection.execute(insert, {**values, "name": name}).scalar_one()
        connection.execute(fill, {"id": number, "spool_group": group.spool_group})
