"""Stores the files of a registration as a list, whatever its target."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    stages = sa.table("stages", sa.column("job_id"), sa.column("stage"), sa.column("product"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(stages).where(stages.c.stage == "register")).all():
        registered = json.loads(row.product)
        xml = registered.pop("xml")
        changed = json.dumps({**registered, "files": [xml]})
        here = (stages.c.job_id == row.job_id, stages.c.stage == row.stage)
        connection.execute(sa.update(stages).where(*here).values(product=changed))
