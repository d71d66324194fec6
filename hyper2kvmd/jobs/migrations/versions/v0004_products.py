"""Stores the product of a stage directly, no longer in an object under a key. The plan contains the machine."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    stages = sa.table("stages", sa.column("job_id"), sa.column("stage"), sa.column("product"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(stages)).all():
        (product,) = (one for one in json.loads(row.product).values() if one is not None)
        changed = json.dumps(_planned(product) if row.stage == "plan" else product)
        here = (stages.c.job_id == row.job_id, stages.c.stage == row.stage)
        connection.execute(sa.update(stages).where(*here).values(product=changed))


def _planned(source: dict[str, Any]) -> dict[str, Any]:
    nics, disks = source.pop("nics"), [{"at": {"path": disk["path"]}} for disk in source["disks"]]
    return {**source, "machine": {"disks": disks, "nics": nics}}
