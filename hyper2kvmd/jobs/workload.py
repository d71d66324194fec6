"""What the daemon did in each hour, and how fast conversions were."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, insert, select, update

from hyper2kvmd.jobs.tables import conversions, work
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.jobs import PastRate, Work

RATED = 10
"""Conversions whose median is the past rate."""


class Workload(Transactions):
    def record_work(self, moment: datetime, *, bytes_read: int = 0, bytes_written: int = 0) -> None:
        """Add bytes to the hour of that moment. Jobs that ended are counted with their end."""
        with self.transaction(writes=True) as connection:
            add_work(connection, moment, bytes_read=bytes_read, bytes_written=bytes_written)

    def work_since(self, moment: datetime) -> Sequence[Work]:
        """The hours with work since that of `moment`, in order."""
        query = select(work).where(work.c.hour >= _hour(moment)).order_by(work.c.hour)
        with self.transaction() as connection:
            return [Work.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def past_rate(self) -> PastRate | None:
        """From the last RATED conversions; None if none is on record."""
        from statistics import median  # not needed by an idle daemon

        query = select(conversions).order_by(conversions.c.job_id.desc()).limit(RATED)
        with self.transaction() as connection:
            rates = [row.data_bytes / row.seconds for row in connection.execute(query)]
        return PastRate(bytes_per_second=median(rates), conversions=len(rates)) if rates else None


def add_work(connection: Connection, moment: datetime, **amounts: int) -> None:
    hour = _hour(moment)
    sums = {name: work.c[name] + amount for name, amount in amounts.items()}
    if connection.execute(update(work).where(work.c.hour == hour).values(sums)).rowcount == 0:
        connection.execute(insert(work).values(hour=hour, **amounts))


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
