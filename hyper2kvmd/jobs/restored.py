"""Brings a restored database up to date with what happened since its backup."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, delete, func, select
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.jobs.cards import forget_cards
from hyper2kvmd.jobs.changes import change, is_active, over, queued, record_at
from hyper2kvmd.jobs.dependencies import BROKEN
from hyper2kvmd.jobs.salvaged import continue_numbers
from hyper2kvmd.jobs.tables import jobs, moves, problems_adapter
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.jobs import State, WaitingFor
from hyper2kvmd.model.outcome import MachineOutcome, Outcome

HELD = "was active in the restored backup; check its result, then run `h2kvmctl release` or `h2kvmctl cancel`"
ACTIVE = "active/"


class Restored(NamedTuple):
    ended: list[int]
    """Jobs that ended after the backup."""
    queued: list[int]
    held: list[int]
    """Jobs of which it is not known whether they ended."""


def settle(address: str, number: int, outcomes: Sequence[tuple[str, Outcome]], claims: Collection[str]) -> Restored:
    """End the jobs whose outcome is known, queue those whose file is among the claims in active/, and hold the others.
    The next job gets a higher number than `number`.

    So are jobs that had ended and were retried after the backup. Moves on record were made or undone since. Raises as a
    store does.
    """
    known = {one.job_id: (path, one) for path, outcome in outcomes for one in outcome.machines}
    done = Restored([], [], [])
    store = Transactions(address)
    try:
        with store.transaction(writes=True) as connection:
            continue_numbers(connection, number)
            connection.execute(delete(moves))
            for row in connection.execute(_rows().where(is_active()).order_by(jobs.c.id)).all():
                path, outcome = known.get(row.id, ("", None))
                if outcome is not None and outcome.vm_name == row.vm_name and not outcome.state.active:
                    _end(connection, row.id, path, outcome)
                    done.ended.append(row.id)
                elif row.claim in claims:
                    if row.state == State.RUNNING:
                        change(connection, (jobs.c.id == row.id,), **queued(), not_before=None, waiting_for=None)
                    done.queued.append(row.id)
                else:
                    _hold(connection, row, done)
            for row in connection.execute(_rows().where(jobs.c.state.in_(BROKEN)).order_by(jobs.c.id)).all():
                _settle_retried(connection, row, known.get(row.id), claims, done)
    finally:
        store.close()
    return done


def _rows() -> Select[Any]:
    claim = func.coalesce(jobs.c.spool_group, jobs.c.spool_claim).label("claim")
    return select(jobs.c.id, jobs.c.vm_name, jobs.c.attempt, jobs.c.state, jobs.c.finished, jobs.c.spool_path, claim)


def _settle_retried(
    connection: Connection,
    row: Any,
    found: tuple[str, MachineOutcome] | None,
    claims: Collection[str],
    done: Restored,
) -> None:
    """A job that had failed or was cancelled: its file is in active/ again, or its outcome is a later one."""
    if found is not None and found[1].vm_name == row.vm_name and _is_later(found[1], row.finished):
        _end(connection, row.id, *found)
        done.ended.append(row.id)
    elif row.claim in claims and row.spool_path is not None and not row.spool_path.startswith(ACTIVE):
        with suppress(IntegrityError), connection.begin_nested():  # another active job has the same content
            _hold(connection, row, done)
            change(connection, (jobs.c.id == row.id,), spool_path=f"{ACTIVE}{row.claim}")


def _is_later(outcome: MachineOutcome, finished: datetime | None) -> bool:
    if outcome.finished is None or finished is None:
        return False
    return outcome.finished > finished and not outcome.state.active


def _hold(connection: Connection, row: Any, done: Restored) -> None:
    change(connection, (jobs.c.id == row.id,), **_held())
    record_at(connection, row.id, row.attempt, "held", "restored from a backup")
    done.held.append(row.id)


def _held() -> dict[str, Any]:
    return {**queued(), "state": State.HELD, "waiting_for": WaitingFor.OPERATOR, "note": HELD}


def _end(connection: Connection, job_id: int, path: str, outcome: MachineOutcome) -> None:
    values = {
        **over(outcome.state),
        "attempt": outcome.attempts,
        "started": outcome.started,
        "finished": outcome.finished or datetime.now(UTC),
        "problems": problems_adapter.dump_json(outcome.problems).decode(),
        "note": str(outcome.images[0].path) if outcome.images else outcome.kept,
    }
    change(connection, (jobs.c.id == job_id,), **values)
    change(connection, (jobs.c.id == job_id, jobs.c.spool_path.is_not(None)), spool_path=path)
    if outcome.state is not State.SUCCEEDED:
        forget_cards(connection, job_id)
    record_at(connection, job_id, outcome.attempts, outcome.state.value, "found after a restore of the database")
