"""Addresses of machines that exist or come into being only, with an index for the search of duplicates."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM cards WHERE job_id IN (SELECT id FROM jobs WHERE state IN ('failed', 'cancelled'))")
    op.drop_index("ix_cards_mac", table_name="cards")
    op.create_index("ix_cards_mac_place_job_id", "cards", ["mac", "place", "job_id"])
