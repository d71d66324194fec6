"""Reduces the products of jobs that have succeeded: no attempt continues from them. Only what is shown stays."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

JOBS_AT_ONCE = 1000
EMPTY_LAYOUT: dict[str, Any] = {"tables": []}


def upgrade() -> None:
    connection = op.get_bind()
    succeeded = sa.text("SELECT id FROM jobs WHERE state = 'succeeded' AND id > :after ORDER BY id LIMIT :many")
    last = 0
    while found := connection.execute(succeeded, {"after": last, "many": JOBS_AT_ONCE}).scalars().all():
        last = found[-1]
        _reduce(connection, found[0], last)


def _reduce(connection: sa.Connection, first: int, last: int) -> None:
    query = sa.text(
        "SELECT stages.job_id, stages.stage, stages.product FROM stages JOIN jobs ON jobs.id = stages.job_id"
        " WHERE stages.job_id BETWEEN :first AND :last AND jobs.state = 'succeeded' AND stages.stage IN"
        " ('plan', 'convert', 'repair', 'verify')"
    )
    reduced = [
        {"job": row.job_id, "stage": row.stage, "product": product}
        for row in connection.execute(query, {"first": first, "last": last})
        if (product := _reduced(row.stage, row.product)) != row.product
    ]
    if reduced:
        change = sa.text("UPDATE stages SET product = :product WHERE job_id = :job AND stage = :stage")
        connection.execute(change, reduced)


def _reduced(stage: str, product: str) -> str:
    """As this version records it when a job succeeds. A product that cannot be read is dropped."""
    try:
        value = json.loads(product)
        return json.dumps(LESS[stage](value), separators=(",", ":"))
    except (ValueError, TypeError, AttributeError, KeyError):
        return ""


def _plan(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "machine": {"disks": []}, "disks": [], "layout": EMPTY_LAYOUT}


def _image(image: dict[str, Any]) -> dict[str, Any]:
    return {**image, "disks": [], "layout": EMPTY_LAYOUT, "evidence": []}


def _guest(guest: dict[str, Any]) -> dict[str, Any]:
    return {name: guest[name] for name in ("family", "concerns") if name in guest}


def _verdict(verdict: dict[str, Any]) -> dict[str, Any]:
    return {name: verdict[name] for name in ("level", "evidence")}


LESS = {"plan": _plan, "convert": _image, "repair": _guest, "verify": _verdict}
