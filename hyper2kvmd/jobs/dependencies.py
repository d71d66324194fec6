"""Jobs that wait for others: the statements that keep their state true, for use within one transaction.

A waiting job is held while one of those that it needs has failed or was cancelled, and waits in the queue while they
have not all succeeded. So it starts by itself when all of them have, also after a retry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, case, delete, exists, func, insert, select, union, update
from sqlalchemy.sql.elements import ColumnElement

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.changes import UNDELAYED, change, queued, record, record_all
from hyper2kvmd.jobs.tables import batches, dependencies, jobs, migration_of
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, State, WaitingFor
from hyper2kvmd.start_times import earliest_start, missing_zone

BROKEN = (State.FAILED, State.CANCELLED)
NEEDED, SHOWN_BY_NAME = jobs.alias(), jobs.alias()
"""Made once: SQLAlchemy copies all columns for each alias."""
MAX_NEEDED = 100_000
"""Jobs that all waiting jobs of one submitter need, counted for each of them: a transaction handles many at a time."""


def needed_by_others() -> ColumnElement[bool]:
    """Jobs that an active one needs and that have not succeeded: what became of them has to stay on record.

    One that has succeeded may be forgotten, with its dependencies: nothing waits for it any more.
    """
    other = jobs.alias()
    active = other.c.state.in_([state for state in State if state.active])
    needs = dependencies.c.needs == jobs.c.id, dependencies.c.job_id == other.c.id, active
    return and_(jobs.c.state != State.SUCCEEDED, exists(select(dependencies.c.job_id).where(*needs)))


# ---------------------------------------------------------------- what a migration needs


def needed_jobs(
    connection: Connection, names: Iterable[str], submitter_uid: int, *, operator: bool
) -> Mapping[str, Sequence[int]]:
    """For each name, the jobs of a batch or the newest job of a VM of that submitter.

    For an operator without one of that name, those of the only submitter who has one.
    Raises InvalidInput: `after-unknown`, `after-ambiguous`.
    """
    found = {name: _named(connection, name, submitter_uid) for name in names}
    if operator:
        found |= {name: _of_others(connection, name) for name, jobs_found in found.items() if not any(jobs_found)}
    unknown = [name for name, (batch, vm) in found.items() if not batch and not vm]
    if unknown:
        raise InvalidInput(
            "after-unknown",
            f"after names {', '.join(unknown)}, which is no machine of the file, no batch and no machine on record",
            hint="Submit that machine or batch first, or correct the name. `h2kvmctl list` shows the names",
        )
    ambiguous = [name for name, (batch, vm) in found.items() if batch and vm]
    if ambiguous:
        raise InvalidInput(
            "after-ambiguous",
            f"after names {', '.join(ambiguous)}, which is a batch as well as a machine",
            hint="Give the batch another name with `batch:`, and submit it again",
        )
    return {name: (*batch, *vm) for name, (batch, vm) in found.items()}


Named = tuple[Sequence[int], Sequence[int]]
"""The jobs of a batch, and the job of a VM, of the same name."""


def _named(connection: Connection, name: str, uid: int) -> Named:
    """The submitter's newest batch and newest job of that name."""
    batch = _newest(select(batches.c.id).where(batches.c.name == name), batches.c, uid)
    vm = _newest(select(jobs.c.id).where(*_accepted(name)), jobs.c, uid)
    members = select(jobs.c.id).where(jobs.c.batch_id == batch.scalar_subquery()).order_by(jobs.c.id)
    return tuple(connection.execute(members).scalars()), tuple(connection.execute(vm).scalars())


def _of_others(connection: Connection, name: str) -> Named:
    """Raises InvalidInput (`after-ambiguous`) if several submitters have a batch or a job of that name."""
    of_batches = select(batches.c.submitter_uid).where(batches.c.name == name)
    query = union(of_batches, select(jobs.c.submitter_uid).where(*_accepted(name)))
    owners = connection.execute(query).scalars().all()
    if len(owners) > 1:
        raise InvalidInput(
            "after-ambiguous",
            f"after names {name}, which {len(owners)} submitters have a machine or a batch of",
            hint="Submit this as the submitter of the one that is meant, or hold it and release it by hand",
        )
    return _named(connection, name, owners[0]) if owners else ((), ())


def _accepted(name: str) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.vm_name == name, jobs.c.state != State.REJECTED


def _newest(query: Select[Any], columns: Any, uid: int) -> Select[Any]:
    return query.where(columns.submitter_uid == uid).order_by(columns.id.desc()).limit(1)


def require_room(connection: Connection, submitter_uid: int, more: int) -> None:
    """Raises InvalidInput (`after-many`) if the submitter's waiting jobs would need too many jobs with `more`."""
    theirs = jobs.c.submitter_uid == submitter_uid, jobs.c.state.in_((State.QUEUED, State.HELD))
    query = select(func.count()).select_from(dependencies).join(jobs, jobs.c.id == dependencies.c.job_id)
    if more and connection.execute(query.where(*theirs)).scalar_one() + more > MAX_NEEDED:
        raise InvalidInput(
            "after-many",
            f"the waiting jobs of this submitter would wait for more than {MAX_NEEDED} jobs, counted for each of them",
            hint="Name one machine in `after` instead of a large batch, or submit this when other jobs have finished",
        )


def depend(connection: Connection, job_id: int, needs: Iterable[int]) -> None:
    rows = [{"job_id": job_id, "needs": number} for number in dict.fromkeys(needs)]
    if rows:
        connection.execute(insert(dependencies), rows)


# ---------------------------------------------------------------- what a waiting job waits for


UNHELD: Mapping[str, Any] = {"state": State.QUEUED, **UNDELAYED, "waiting_for": None, "note": ""}


def start_of(job_id: int, migration: Migration | None, moment: datetime) -> Mapping[str, Any]:
    """The columns of a queued job that nothing holds up but its time and its window.

    It is held if the time zone of the window is unknown. One whose migration cannot be read fails when it is claimed.
    """
    if migration is None:
        return UNHELD
    if zone := missing_zone(migration):
        remedy = f"Install tzdata, then run `h2kvmctl release {job_id}`"
        note = f"window.timezone is {zone}, which this host does not have. {remedy}"
        return {**UNHELD, "state": State.HELD, "waiting_for": WaitingFor.OPERATOR, "note": note}
    start, reason = earliest_start(migration, moment)
    if reason is None:
        return UNHELD
    return {**UNHELD, "not_before": start, "waiting_for": reason}


def enqueue(connection: Connection, job_id: int, **values: Any) -> None:
    """Let a job wait for whatever it has to wait for now."""
    change(connection, (jobs.c.id == job_id,), **queued(), waiting_for=WaitingFor.AFTER, note="", **values)
    arrange(connection, jobs.c.id == job_id)


def arrange_dependents(connection: Connection, job_id: int) -> None:
    """Call it when the job has ended or is active again."""
    arrange(connection, jobs.c.id.in_(select(dependencies.c.job_id).where(dependencies.c.needs == job_id)))


def arrange(connection: Connection, which: ColumnElement[bool]) -> None:
    """Hold, queue or free the waiting ones of these jobs, by what became of those that they need.

    However many they are, it is one question, one change, and one entry of events.
    """
    now = datetime.now(UTC)
    changes = [(row, _arranged(row, now)) for row in connection.execute(_waiting(which)).all()]
    values = [{"number": row.id, **_columns(row), **new} for row, new in changes if new]
    if values:
        changed: dict[str, Any] = {name: bindparam(f"new_{name}") for name in UNHELD}
        renamed = [{"number": one["number"], **{f"new_{name}": one[name] for name in UNHELD}} for one in values]
        connection.execute(update(jobs).where(jobs.c.id == bindparam("number")).values(changed), renamed)
    _record_changes(connection, [(row, new) for row, new in changes if new.get("state", row.state) != row.state])


def _columns(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in UNHELD}


def _waiting(which: ColumnElement[bool]) -> Select[Any]:
    """The waiting ones of these jobs: how many of those that they need have not succeeded, and one of them."""
    unfinished = (
        select(
            dependencies.c.job_id,
            func.count().label("number"),
            func.min(NEEDED.c.id).label("first"),
            func.min(case((NEEDED.c.state.in_(BROKEN), NEEDED.c.id))).label("broken"),
        )
        .join(NEEDED, NEEDED.c.id == dependencies.c.needs)
        .where(NEEDED.c.state != State.SUCCEEDED, dependencies.c.job_id.in_(select(jobs.c.id).where(which)))
        .group_by(dependencies.c.job_id)
        .subquery()
    )
    free = case((unfinished.c.number.is_(None), jobs.c.migration))
    columns = (jobs.c.id, jobs.c.attempt, *(jobs.c[name] for name in UNHELD), free.label("migration"))
    shown = SHOWN_BY_NAME.c
    others = (unfinished.c.number, unfinished.c.broken, shown.id.label("needed"), shown.vm_name.label("name"))
    return (
        select(*columns, *others, shown.state.label("became"))
        .outerjoin(unfinished, unfinished.c.job_id == jobs.c.id)
        .outerjoin(SHOWN_BY_NAME, shown.id == func.coalesce(unfinished.c.broken, unfinished.c.first))
        .where(jobs.c.state.in_((State.QUEUED, State.HELD)), which)
        .order_by(jobs.c.id)
    )


def _arranged(row: Any, now: datetime) -> Mapping[str, Any]:
    """The columns that change."""
    broken = _broken_note(row) if row.broken else ""
    if row.state == State.HELD and row.waiting_for == WaitingFor.REMEDY:
        return {}
    if row.state == State.HELD and row.waiting_for != WaitingFor.AFTER:
        return {"note": broken}
    if broken:
        return {"state": State.HELD, "waiting_for": WaitingFor.AFTER, "note": broken}
    if row.number:
        more = f" and {row.number - 1} more" if row.number > 1 else ""
        note = f"waits for {row.name} (job {row.needed}){more}"
        return {"state": State.QUEUED, "waiting_for": WaitingFor.AFTER, "note": note}
    if row.waiting_for != WaitingFor.AFTER:
        return {}
    return start_of(row.id, migration_of(row.migration), now)


def _record_changes(connection: Connection, changes: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
    """Those that are held now, or no longer."""
    rows = [
        (row.id, row.attempt, "held", new["note"])
        if new["state"] == State.HELD
        else (row.id, row.attempt, "released", "nothing that it needs has failed any more")
        for row, new in changes
    ]
    record_all(connection, rows)


def forget_broken(connection: Connection, job_id: int) -> None:
    """Let the job start in spite of those that failed or were cancelled."""
    broken = select(jobs.c.id).where(jobs.c.id == dependencies.c.needs, jobs.c.state.in_(BROKEN)).exists()
    connection.execute(delete(dependencies).where(dependencies.c.job_id == job_id, broken))


def _broken_note(row: Any) -> str:
    what = "failed" if row.became == State.FAILED else "was cancelled"
    return (
        f"needs {row.name} (job {row.needed}), which {what}. `h2kvmctl retry {row.needed}` lets this job wait for it"
        f" again; `h2kvmctl release {row.id}` starts this job in spite of it"
    )


def put(connection: Connection, job: Job, **values: Any) -> None:
    """Queue a job, or hold it if the values say so."""
    state = values.setdefault("state", State.QUEUED)
    change(connection, (jobs.c.id == job.id,), **values)
    if state is State.HELD:
        record(connection, job, "held", values["note"])
    elif job.state is State.HELD:
        record(connection, job, "released", "nothing that it needs has failed any more")
