"""Stores each warning of a plan, which was a text, as a concern with a code."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    stages = sa.table("stages", sa.column("job_id"), sa.column("stage"), sa.column("product"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(stages).where(stages.c.stage == "plan")).all():
        changed = json.dumps(_with_codes(json.loads(row.product)))
        here = (stages.c.job_id == row.job_id, stages.c.stage == row.stage)
        connection.execute(sa.update(stages).where(*here).values(product=changed))


def _with_codes(planned: dict[str, Any]) -> dict[str, Any]:
    for subject in (planned, planned["machine"], *planned["disks"]):
        texts = subject.get("concerns", ())
        subject["concerns"] = [{"code": "concern-without-code", "message": text} for text in texts]
    return planned
