"""What the files in the spool need: how jobs ended, and which of them are tried again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text
from sqlalchemy.sql.elements import ColumnElement

from hyper2kvmd.jobs.changes import change, finished_stages, is_active, one
from hyper2kvmd.jobs.tables import RETRIED, RETRIED_FILES, events, jobs, stages
from hyper2kvmd.jobs.transactions import Transactions, remembered
from hyper2kvmd.model.jobs import WARNED, Stage
from hyper2kvmd.model.outcome import Ending


class RetriedFile(NamedTuple):
    """A spool file of which a job was retried, and which is still where it was put."""

    job_id: int
    path: str
    claim: str


class Endings(Transactions):
    def endings(self, job_ids: Sequence[int]) -> Sequence[Ending]:
        """How these finished jobs ended."""
        with self.transaction() as connection:
            return [_ending(connection, job_id) for job_id in job_ids]

    @remembered
    def retried(self) -> Sequence[RetriedFile]:
        claim = func.coalesce(jobs.c.spool_group, jobs.c.spool_claim)
        query = select(jobs.c.id, jobs.c.spool_path, claim.label("claim")).where(text(RETRIED_FILES))
        with self.transaction() as connection:
            rows = connection.execute(query.order_by(jobs.c.id)).all()
        return [RetriedFile(row.id, row.spool_path.removeprefix(RETRIED), row.claim) for row in rows]


def is_in_use(connection: Connection, job_id: int) -> bool:
    """Whether a job of the same spool file is active."""
    return connection.execute(select(jobs.c.id).where(_of_same_file(job_id), is_active()).limit(1)).first() is not None


def take_file_back(connection: Connection, job_id: int) -> None:
    """Mark the spool file of a job that is retried: it was put away with an outcome that no longer holds."""
    holder = select(jobs.c.id, jobs.c.spool_path).where(_of_same_file(job_id), jobs.c.spool_path.is_not(None))
    row = connection.execute(holder).first()
    if row is not None and not row.spool_path.startswith(("active/", RETRIED)):
        change(connection, (jobs.c.id == row.id,), spool_path=f"{RETRIED}{row.spool_path}")


def _of_same_file(job_id: int) -> ColumnElement[bool]:
    group = select(jobs.c.spool_group).where(jobs.c.id == job_id).scalar_subquery()
    return (jobs.c.id == job_id) | (jobs.c.spool_group == group)


def _ending(connection: Connection, job_id: int) -> Ending:
    of_job = stages.c.job_id == job_id
    seconds = connection.execute(select(stages.c.stage, stages.c.seconds).where(of_job)).all()
    known = {stage.value for stage in Stage}
    found = {Stage(row.stage): row.seconds for row in seconds if row.stage in known}
    return Ending(
        job=one(connection, job_id),
        seconds={stage: found[stage] for stage in Stage if stage in found},
        finished=finished_stages(connection, job_id),
        warned=tuple(dict.fromkeys(_messages(connection, job_id, WARNED))),
        cancelled_by=next(reversed(_messages(connection, job_id, "cancelled", "cancel-requested")), ""),
    )


def _messages(connection: Connection, job_id: int, *kinds: str) -> list[str]:
    """The messages of events of these kinds, except empty ones."""
    where = events.c.job_id == job_id, events.c.kind.in_(kinds), events.c.message != ""
    return list(connection.execute(select(events.c.message).where(*where).order_by(events.c.id)).scalars())
