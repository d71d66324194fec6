"""Jobs that wait for others: the statements that keep their state true, for use within one transaction.

A waiting job is held while one of those that it needs has failed or was cancelled, and waits in the queue while they
have not all succeeded. So it starts by itself when all of them have, also after a retry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, exists, func, insert, select
from sqlalchemy.sql.elements import ColumnElement

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.changes import change, forget_early_events, one, queued, record
from hyper2kvmd.jobs.tables import batches, dependencies, jobs
from hyper2kvmd.model.jobs import Job, State, WaitingFor
from hyper2kvmd.start_times import earliest_start, missing_zone
from hyper2kvmd.units import local_time

BROKEN = (State.FAILED, State.CANCELLED)
MAX_NEEDED = 100_000
"""Jobs that all waiting jobs of one submitter need, counted for each of them: a transaction handles many at a time."""


def needed_by_others() -> ColumnElement[bool]:
    """Jobs that an active one needs: what became of them has to stay on record."""
    other = jobs.alias()
    active = other.c.state.in_([state for state in State if state.active])
    needs = dependencies.c.needs == jobs.c.id, dependencies.c.job_id == other.c.id, active
    return exists(select(dependencies.c.job_id).where(*needs))


# ---------------------------------------------------------------- what a migration needs


def needed_jobs(connection: Connection, names: Iterable[str], submitter_uid: int | None) -> Mapping[str, Sequence[int]]:
    """For each name, the jobs of a batch or the newest job of a VM, of that submitter or of anybody.

    Raises InvalidInput: `after-unknown`, `after-ambiguous`.
    """
    found = {name: _named(connection, name, submitter_uid) for name in names}
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


def _named(connection: Connection, name: str, uid: int | None) -> tuple[Sequence[int], Sequence[int]]:
    """The jobs of the newest batch of that name, and the newest job of a VM of that name."""
    batch = _newest(select(batches.c.id).where(batches.c.name == name), batches.c, uid)
    accepted = jobs.c.vm_name == name, jobs.c.state != State.REJECTED
    vm = _newest(select(jobs.c.id).where(*accepted), jobs.c, uid)
    members = select(jobs.c.id).where(jobs.c.batch_id == batch.scalar_subquery()).order_by(jobs.c.id)
    return tuple(connection.execute(members).scalars()), tuple(connection.execute(vm).scalars())


def _newest(query: Select[Any], columns: Any, uid: int | None) -> Select[Any]:
    ours = query if uid is None else query.where(columns.submitter_uid == uid)
    return ours.order_by(columns.id.desc()).limit(1)


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


def start_of(job: Job, moment: datetime) -> dict[str, Any]:
    """The columns of a queued job that nothing holds up but its time and its window.

    It is held if the time zone of the window is unknown.
    """
    if job.migration is None:
        return {}
    if zone := missing_zone(job.migration):
        remedy = f"Install tzdata, then run `h2kvmctl release {job.id}`"
        note = f"window.timezone is {zone}, which this host does not have. {remedy}"
        return {"state": State.HELD, "not_before": None, "waiting_for": WaitingFor.OPERATOR, "note": note}
    start, reason = earliest_start(job.migration, moment)
    if reason is None:
        return {"not_before": None, "waiting_for": None, "note": ""}
    what = "its window opens" if reason is WaitingFor.WINDOW else "it starts not before"
    return {"not_before": start, "waiting_for": reason, "note": f"{what} {local_time(start)}"}


def enqueue(connection: Connection, job_id: int, **values: Any) -> None:
    """Let a job wait for whatever it has to wait for now."""
    change(connection, (jobs.c.id == job_id,), **queued(), waiting_for=WaitingFor.AFTER, note="", **values)
    arrange(connection, job_id)


def arrange(connection: Connection, job_id: int) -> None:
    """Hold, queue or free a waiting job, by what became of those that it needs."""
    job = one(connection, job_id)
    open_ones = _unfinished(connection, job_id)
    broken = [other for other in open_ones if other[2] in BROKEN]
    if job.state is State.HELD and job.waiting_for is not WaitingFor.AFTER:
        change(connection, (jobs.c.id == job_id,), note=_broken_note(broken, job_id) if broken else "")
    elif broken:
        _hold(connection, job, _broken_note(broken, job_id))
    elif open_ones:
        names = ", ".join(f"{name} (job {number})" for number, name, _ in open_ones[:5])
        more = f" and {len(open_ones) - 5} more" if len(open_ones) > 5 else ""
        put(connection, job, waiting_for=WaitingFor.AFTER, note=f"waits for {names}{more}")
    elif job.waiting_for is WaitingFor.AFTER:
        put(connection, job, **start_of(job, datetime.now(UTC)))


def arrange_dependents(connection: Connection, job_id: int) -> None:
    """Call it when the job has ended or is active again."""
    waiting = jobs.c.state.in_((State.QUEUED, State.HELD))
    query = (
        select(jobs.c.id)
        .join(dependencies, dependencies.c.job_id == jobs.c.id)
        .where(dependencies.c.needs == job_id, waiting)
        .order_by(jobs.c.id)
    )
    for dependent in connection.execute(query).scalars().all():
        arrange(connection, dependent)


def forget_broken(connection: Connection, job_id: int) -> None:
    """Let the job start in spite of those that failed or were cancelled."""
    broken = select(jobs.c.id).where(jobs.c.id == dependencies.c.needs, jobs.c.state.in_(BROKEN)).exists()
    connection.execute(delete(dependencies).where(dependencies.c.job_id == job_id, broken))


def _unfinished(connection: Connection, job_id: int) -> Sequence[Any]:
    """Number, name and state of those that have not succeeded."""
    query = (
        select(jobs.c.id, jobs.c.vm_name, jobs.c.state)
        .join(dependencies, dependencies.c.needs == jobs.c.id)
        .where(dependencies.c.job_id == job_id, jobs.c.state != State.SUCCEEDED)
        .order_by(jobs.c.id)
    )
    return connection.execute(query).all()


def _broken_note(broken: Sequence[Any], job_id: int) -> str:
    number, name, state = broken[0]
    what = "failed" if state == State.FAILED else "was cancelled"
    return (
        f"needs {name} (job {number}), which {what}. `h2kvmctl retry {number}` lets this job wait for it again;"
        f" `h2kvmctl release {job_id}` starts this job in spite of it"
    )


def _hold(connection: Connection, job: Job, note: str) -> None:
    change(connection, (jobs.c.id == job.id,), state=State.HELD, waiting_for=WaitingFor.AFTER, note=note)
    if job.state is not State.HELD:
        forget_early_events(connection, job.id)
        record(connection, job, "held", note)


def put(connection: Connection, job: Job, **values: Any) -> None:
    """Queue a job, or hold it if the values say so."""
    state = values.setdefault("state", State.QUEUED)
    change(connection, (jobs.c.id == job.id,), **values)
    if state is State.HELD:
        record(connection, job, "held", values["note"])
    elif job.state is State.HELD:
        record(connection, job, "released", "nothing that it needs has failed any more")
