"""Stores the location of a planned disk under `at`. The first file of each disk has its full path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    stages = sa.table("stages", sa.column("job_id"), sa.column("stage"), sa.column("product"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(stages).where(stages.c.stage == "plan")).all():
        planned = json.loads(row.product)
        changed = json.dumps({**planned, "disks": [_located(disk) for disk in planned["disks"]]})
        here = (stages.c.job_id == row.job_id, stages.c.stage == row.stage)
        connection.execute(sa.update(stages).where(*here).values(product=changed))


def _located(disk: dict[str, Any]) -> dict[str, Any]:
    path, files = disk.pop("path"), disk.pop("files")
    first = [{**file, "path": str(Path(path).parent / file["path"])} for file in files[:1]]
    return {"at": {"path": path}, **disk, "files": [*first, *files[1:]]}
