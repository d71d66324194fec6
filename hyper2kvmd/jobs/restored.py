"""Brings a restored database up to date with what happened since its backup."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from hyper2kvmd.jobs.cards import forget_cards
from hyper2kvmd.jobs.changes import change, is_active, over, queued, record_at
from hyper2kvmd.jobs.tables import jobs, problems_adapter
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.jobs import State, WaitingFor
from hyper2kvmd.model.outcome import MachineOutcome, Outcome

HELD = "was active in the restored backup; check its result, then run `h2kvmctl release` or `h2kvmctl cancel`"


class Restored(NamedTuple):
    ended: list[int]
    """Jobs that ended after the backup."""
    queued: list[int]
    held: list[int]
    """Jobs of which it is not known whether they ended."""


def continue_numbers(path: Path, number: int) -> None:
    """Let the next job get a higher number than this. Raises sqlite3.Error."""
    with closing(sqlite3.connect(path)) as connection, connection:
        changed = connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'jobs'", (number,))
        if changed.rowcount == 0:
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)", (number,))


def settle(address: str, outcomes: Sequence[tuple[str, Outcome]], claims: Collection[str]) -> Restored:
    """End the jobs whose outcome is known, queue those whose file is among the claims in active/, and hold the others.

    Raises as a store does.
    """
    known = {one.job_id: (path, one) for path, outcome in outcomes for one in outcome.machines}
    done = Restored([], [], [])
    store = Transactions(address)
    try:
        with store.transaction(writes=True) as connection:
            claim = func.coalesce(jobs.c.spool_group, jobs.c.spool_claim)
            query = select(jobs.c.id, jobs.c.vm_name, jobs.c.attempt, jobs.c.state, claim.label("claim"))
            for row in connection.execute(query.where(is_active()).order_by(jobs.c.id)).all():
                path, outcome = known.get(row.id, ("", None))
                if outcome is not None and outcome.vm_name == row.vm_name and not outcome.state.active:
                    _end(connection, row.id, path, outcome)
                    done.ended.append(row.id)
                elif row.claim in claims:
                    if row.state == State.RUNNING:
                        change(connection, (jobs.c.id == row.id,), **queued(), not_before=None, waiting_for=None)
                    done.queued.append(row.id)
                else:
                    change(connection, (jobs.c.id == row.id,), **_held())
                    record_at(connection, row.id, row.attempt, "held", "restored from a backup")
                    done.held.append(row.id)
    finally:
        store.close()
    return done


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
