"""Jobs that ran when the daemon died, for use within one transaction.

One of them may be the cause. So a job that several daemons died with runs alone. If daemons still die with it, it has
failed, and the jobs beside it were innocent.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.engine import RowMapping

from hyper2kvmd.jobs.cards import forget_cards
from hyper2kvmd.jobs.changes import UNDELAYED, change, first_line, over, queued, record_at
from hyper2kvmd.jobs.dependencies import arrange_dependents
from hyper2kvmd.jobs.rows import count_of
from hyper2kvmd.jobs.tables import events, jobs, problems_adapter
from hyper2kvmd.jobs.workload import add_work
from hyper2kvmd.model.jobs import Problem, Stage, State

SUSPECTED_AFTER = 2
"""Deaths of the daemon after which a job runs alone."""
MAX_DEATHS = 4
"""After so many, the last ones while it ran alone, the job has failed."""
DIED = "the daemon had died"


def runs_any(connection: Connection) -> bool:
    running = select(jobs.c.id).where(jobs.c.state == State.RUNNING).limit(1)
    return connection.execute(running).first() is not None


def runs_suspect(connection: Connection) -> bool:
    suspect = jobs.c.state == State.RUNNING, jobs.c.deaths.between(SUSPECTED_AFTER, MAX_DEATHS)
    return connection.execute(select(jobs.c.id).where(*suspect).limit(1)).first() is not None


def is_suspect(connection: Connection, job_id: int) -> bool:
    deaths = connection.execute(select(jobs.c.deaths).where(jobs.c.id == job_id)).scalar_one()
    return count_of(deaths) >= SUSPECTED_AFTER


def finished_before(connection: Connection, job_id: int, stage: Stage) -> bool:
    """Whether an attempt of the job has finished that stage already."""
    finished = events.c.job_id == job_id, events.c.kind == "stage-finished"
    named = func.substr(events.c.message, 1, len(stage.value)) == stage.value
    return connection.execute(select(events.c.id).where(*finished, named).limit(1)).first() is not None


def recover_job(connection: Connection, row: RowMapping, note: str = DIED) -> None:
    """Put a job that ran when the daemon died back into the queue, or end it. Another `note` counts as no death."""
    number, attempt, deaths = row["id"], row["attempt"], count_of(row["deaths"]) + (note == DIED)
    which = (jobs.c.id == number,)
    if row["cancelling"]:
        change(connection, which, **over(State.CANCELLED), note="")
        forget_cards(connection, number)
        record_at(connection, number, attempt, "cancelled")
    elif deaths >= MAX_DEATHS:
        problems = (_deadly(row["vm_name"], deaths),)
        shown = problems_adapter.dump_json(problems).decode()
        change(connection, which, **over(State.FAILED), note="", problems=shown, deaths=deaths)
        forget_cards(connection, number)
        record_at(connection, number, attempt, "failed", first_line(problems))
        add_work(connection, datetime.now(UTC), failed=1)
    else:
        change(connection, which, **queued(), **UNDELAYED, waiting_for=None, note=note, deaths=deaths)
        record_at(connection, number, attempt, "requeued", note)
    arrange_dependents(connection, number)


def _deadly(vm_name: str, deaths: int) -> Problem:
    return Problem(
        code="job-deadly",
        message=f"{vm_name}: the daemon died {deaths} times while this job ran, the last times with no other job",
        hint="Look for the reason in the journal of the daemon and in the kernel's log (most often, lack of memory)."
        " Correct it, then run `h2kvmctl retry`",
        kind="permanent",
    )
