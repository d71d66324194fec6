"""Lists of jobs and batches, by filters and in several orders.

A list with states is put together from one query for each state, which an index answers in order. So its time depends
on the number of rows that are shown, not on the number on record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, func, nulls_last, or_, select, true, union_all
from sqlalchemy.engine import RowMapping
from sqlalchemy.sql.elements import ColumnElement

from hyper2kvmd.errors import NotFound
from hyper2kvmd.jobs.changes import is_active
from hyper2kvmd.jobs.rows import counts_of
from hyper2kvmd.jobs.tables import SHOWN, batches, job_of, jobs
from hyper2kvmd.jobs.transactions import Transactions, remembered
from hyper2kvmd.model.jobs import MAX_ID, Batch, Job, JobFilter, Sort, State

ACTIVE = frozenset(state.value for state in State if state.active)
EVERY_JOB = JobFilter()
ORDERS: Mapping[Sort, Callable[[Any], tuple[ColumnElement[Any], ...]]] = {
    Sort.NEWEST: lambda row: (row.id.desc(),),
    Sort.OLDEST: lambda row: (row.id,),
    Sort.START: lambda row: (row.priority.desc(), row.id),
    Sort.NAME: lambda row: (row.vm_name, row.id),
    Sort.FINISHED: lambda row: (nulls_last(row.finished.desc()), row.id.desc()),
}
"""For the columns of `jobs`, or of a subquery that has them."""
SORTED_BY = (jobs.c.id, jobs.c.priority, jobs.c.vm_name, jobs.c.finished)


class Lists(Transactions):
    def list(
        self, asked: JobFilter = EVERY_JOB, limit: int = 1000, offset: int = 0, sort: Sort = Sort.NEWEST
    ) -> list[Job]:
        """Those jobs in that order, without the first `offset`, `limit` at most."""
        chosen = _chosen(asked, limit, offset, sort).subquery()
        query = select(jobs, *SHOWN).join(chosen, chosen.c.id == jobs.c.id).order_by(*ORDERS[sort](chosen.c))
        with self.transaction() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def count(self, asked: JobFilter = EVERY_JOB) -> int:
        """How many jobs there are, without a limit."""
        return self._count_all() if asked == EVERY_JOB else self._count(asked)

    @remembered
    def _count_all(self) -> int:
        """Each first page of a list shows it, and the whole index is read for it."""
        return self._count(EVERY_JOB)

    def _count(self, asked: JobFilter) -> int:
        query = select(func.count()).select_from(jobs).where(*_conditions(asked))
        if asked.states:
            query = query.where(jobs.c.state.in_(asked.states))
        with self.transaction() as connection:
            return int(connection.execute(query).scalar_one())

    def batch(self, batch_id: int) -> Batch:
        """Raises NotFound (`batch-unknown`)."""
        if batch_id > MAX_ID:
            raise unknown_batch(batch_id)
        with self.transaction() as connection:
            found = _batches(connection, select(batches).where(batches.c.id == batch_id))
        if not found:
            raise unknown_batch(batch_id)
        return found[0]

    def batches(
        self, *, submitter_uid: int | None = None, active: bool | None = None, limit: int = 1000, offset: int = 0
    ) -> Sequence[Batch]:
        """The newest batches first: of that submitter, and only those with active jobs or only those without."""
        query = select(batches).order_by(batches.c.id.desc()).limit(limit).offset(offset)
        with self.transaction() as connection:
            return _batches(connection, query.where(_batches_of(submitter_uid, active)))

    def count_batches(self, *, submitter_uid: int | None = None, active: bool | None = None) -> int:
        query = select(func.count()).select_from(batches).where(_batches_of(submitter_uid, active))
        with self.transaction() as connection:
            return int(connection.execute(query).scalar_one())


def unknown_batch(batch_id: int) -> NotFound:
    return NotFound("batch-unknown", f"there is no batch {batch_id}", hint="Run `h2kvmctl list` to see the jobs")


def _chosen(asked: JobFilter, limit: int, offset: int, sort: Sort) -> Select[Any]:
    """The jobs, with the columns by which they are sorted. No other column is read of the first `offset` jobs."""
    query = select(*SORTED_BY).where(*_conditions(asked)).order_by(*ORDERS[sort](jobs.c))
    if not asked.states:
        return query.limit(limit).offset(offset)
    if asked.ids or asked.vm_name is not None or asked.batch_id is not None:  # few jobs, by an index
        return query.where(jobs.c.state.in_(asked.states)).limit(limit).offset(offset)
    first = query.limit(limit + offset)
    parts = (first.where(jobs.c.state == state).subquery() for state in dict.fromkeys(asked.states))
    together = union_all(*(select(part) for part in parts)).subquery()
    return select(together).order_by(*ORDERS[sort](together.c)).limit(limit).offset(offset)


CONDITIONS: Mapping[str, Callable[[Any], ColumnElement[bool]]] = {
    "since": lambda moment: or_(jobs.c.finished.is_(None), jobs.c.finished >= moment),
    "batch_id": lambda number: jobs.c.batch_id == number,
    "submitter_uid": lambda uid: jobs.c.submitter_uid == uid,
    "warned": lambda _: jobs.c.warnings > 0,
    "ids": lambda numbers: jobs.c.id.in_(numbers),
    "vm_name": lambda name: jobs.c.vm_name == name,
}
"""For each field of a filter besides `states`."""


def _conditions(asked: JobFilter) -> Sequence[ColumnElement[bool]]:
    given = (name for name in CONDITIONS if getattr(asked, name) != getattr(EVERY_JOB, name))
    return [CONDITIONS[name](getattr(asked, name)) for name in given]


def _batches_of(submitter_uid: int | None, active: bool | None) -> ColumnElement[bool]:
    member = select(jobs.c.id).where(jobs.c.batch_id == batches.c.id, is_active()).exists()
    return and_(
        true() if submitter_uid is None else batches.c.submitter_uid == submitter_uid,
        true() if active is None else member == active,
    )


def _batches(connection: Connection, query: Select[Any]) -> list[Batch]:
    """With what became of their jobs."""
    rows = connection.execute(query).mappings().all()
    figures = (
        select(jobs.c.batch_id, jobs.c.state, func.count(), func.max(jobs.c.finished), func.sum(jobs.c.warnings))
        .where(jobs.c.batch_id.in_([row["id"] for row in rows]))
        .group_by(jobs.c.batch_id, jobs.c.state)
    )
    found: dict[int, list[Any]] = {row["id"]: [] for row in rows}
    for figure in connection.execute(figures):
        found[figure[0]].append(figure)
    return [_batch(row, found[row["id"]]) for row in rows]


def _batch(row: RowMapping, figures: Sequence[Any]) -> Batch:
    counts = counts_of((state, number) for _, state, number, _, _ in figures)
    ends = [finished for _, state, _, finished, _ in figures if state not in ACTIVE and finished is not None]
    return Batch(
        **{name: row[name] for name in ("id", "name", "submitter", "submitter_uid", "created")},
        finished=None if counts.active else max(ends, default=None),
        counts=counts,
        warnings=sum(warnings for *_, warnings in figures),
    )
