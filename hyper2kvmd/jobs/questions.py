"""Questions about the queue. Answers are frozen."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select, text

from hyper2kvmd.jobs.changes import is_active, one, without_active_group
from hyper2kvmd.jobs.dependencies import needed_by_others
from hyper2kvmd.jobs.rows import UNKNOWN_TIME, count_of, known_state
from hyper2kvmd.jobs.tables import (
    ENDED_IN_PUBLISH,
    MISPLACED,
    PUT_AWAY,
    RETRIED,
    RETRIED_FILES,
    event_of,
    events,
    job_of,
    jobs,
    queue,
    stages,
)
from hyper2kvmd.jobs.transactions import Transactions, remembered
from hyper2kvmd.model.jobs import Counts, Job, JobEvent, Stage, State, WaitingFor
from hyper2kvmd.model.results import Artifact

NUMBERS = select(
    *(
        select(func.count()).select_from(jobs).where(jobs.c.state == state).scalar_subquery().label(state.value)
        for state in State
        if state is not State.SUCCEEDED
    ),
    select(func.count()).select_from(jobs).scalar_subquery().label("total"),
)
"""Most jobs have succeeded. SQLite counts a whole table in no time, but the rows of one state one by one."""
OLDEST_QUEUED = select(func.min(jobs.c.created)).where(jobs.c.state == State.QUEUED)


class Misplaced(NamedTuple):
    job: Job
    path: str
    """Of its spool file, relative to the spool directory."""
    group: str | None
    """The permanent name of that file, if it describes several machines."""


class FolderOwner(NamedTuple):
    """The job with the number of a working folder."""

    vm_name: str
    state: State
    finished: datetime | None

    def owns(self, name: str, job_id: int) -> bool:
        """Whether the folder is this job's, and not one of another queue whose job had the same number."""
        return name == f"{self.vm_name}.{job_id}"


NEWEST_EVENTS = select(events.c.at).order_by(events.c.id.desc()).limit(1000).subquery()
"""Only those: a clock that was corrected has written a few times in the future, and the table is large."""


class Questions(Transactions):
    def get(self, job_id: int) -> Job:
        with self.transaction() as connection:
            return one(connection, job_id)

    def events(self, job_id: int, after: int = 0) -> Sequence[JobEvent]:
        """Those with a higher number than `after`, the oldest first."""
        query = select(events).where(events.c.job_id == job_id, events.c.id > after).order_by(events.c.id)
        with self.transaction() as connection:
            one(connection, job_id)
            return [event_of(row) for row in connection.execute(query).mappings()]

    def artifacts(self, job_ids: Sequence[int]) -> Mapping[int, Artifact]:
        """The images and reports of those of these jobs that have published them."""
        query = select(stages.c.job_id, stages.c.product).where(
            stages.c.job_id.in_(job_ids), stages.c.stage == Stage.PUBLISH.value
        )
        with self.transaction() as connection:
            rows = connection.execute(query).all()
        found: dict[int, Artifact] = {}
        for row in rows:
            with suppress(ValueError):  # of a version that this one cannot read
                found[row.job_id] = Artifact.model_validate_json(row.product)
        return found

    @remembered
    def overview(self) -> tuple[Counts, datetime | None]:
        """The number of jobs by state, and the submission time of the oldest queued one."""
        with self.transaction() as connection:
            numbers = dict(connection.execute(NUMBERS).mappings().one())
            total = numbers.pop("total")
            counts = Counts.model_validate({**numbers, State.SUCCEEDED.value: total - sum(numbers.values())})
            return counts, connection.execute(OLDEST_QUEUED).scalar_one()

    def waiting(self) -> dict[str, int]:
        """How many jobs of each submitter are queued or held."""
        return dict(self._waiting())

    @remembered
    def _waiting(self) -> Sequence[tuple[str, int]]:
        waiting = jobs.c.state.in_((State.QUEUED, State.HELD))
        with self.transaction() as connection:
            query = select(jobs.c.submitter, func.count()).where(waiting).group_by(jobs.c.submitter)
            return [(row[0], row[1]) for row in connection.execute(query)]

    def waiting_for_space(self) -> Sequence[Job]:
        """Queued jobs that wait for space and can be read, in the order of their numbers."""
        waiting = jobs.c.state == State.QUEUED, jobs.c.waiting_for == WaitingFor.SPACE
        with self.transaction() as connection:
            found = [
                job_of(row) for row in connection.execute(select(jobs).where(*waiting).order_by(jobs.c.id)).mappings()
            ]
        return [job for job in found if job.migration is not None]

    def queued_places(self) -> Mapping[int, tuple[int, int]]:
        """Of queued jobs, by number: their places in the queue, of which the first job has the smallest one."""
        queued = select(jobs.c.id, jobs.c.priority).where(jobs.c.state == State.QUEUED)
        with self.transaction() as connection:
            return {row.id: (-row.priority, row.id) for row in connection.execute(queued)}

    def uid_of(self, submitter: str) -> int | None:
        """The uid of the newest job that a submitter of that name has on record; None if there is no such job."""
        theirs = select(jobs.c.submitter_uid).where(jobs.c.submitter == submitter)
        with self.transaction() as connection:
            uid: int | None = connection.execute(theirs.order_by(jobs.c.id.desc()).limit(1)).scalar()
            return uid

    def active_ids(self) -> frozenset[int]:
        with self.transaction() as connection:
            return frozenset(connection.execute(select(jobs.c.id).where(is_active())).scalars())

    def failures(self, job_id: int) -> int:
        """Tries that failed since the job was submitted or retried by hand."""
        with self.transaction() as connection:
            return count_of(connection.execute(select(jobs.c.failures).where(jobs.c.id == job_id)).scalar_one())

    def known_claims(self, claims: Sequence[str]) -> frozenset[str]:
        """The claimed spool files that are on record as jobs."""
        if not claims:
            return frozenset()
        with self.transaction() as connection:
            return frozenset(
                connection.execute(select(jobs.c.spool_claim).where(jobs.c.spool_claim.in_(claims))).scalars()
            )

    def spool_groups(self, names: Sequence[str]) -> Mapping[str, Sequence[Job]]:
        """The jobs of each of these spool files with several machines, in the order of the file."""
        if not names:
            return {}
        query = select(jobs).where(jobs.c.spool_group.in_(names)).order_by(jobs.c.spool_group, jobs.c.id)
        with self.transaction() as connection:
            rows = connection.execute(query).mappings().all()
        groups = itertools.groupby(rows, lambda row: str(row["spool_group"]))
        return {name: tuple(map(job_of, members)) for name, members in groups}

    @remembered
    def misplaced(self) -> Sequence[Misplaced]:
        """Finished jobs whose spool file is not in the folder of their state."""
        with self.transaction() as connection:
            query = select(jobs).where(text(MISPLACED), ~jobs.c.spool_path.startswith(RETRIED))
            rows = connection.execute(query.order_by(jobs.c.id)).mappings().all()
            return [Misplaced(job_of(row), row["spool_path"], row["spool_group"]) for row in rows]

    def surplus(self, submitter: str, state: State, kept: int) -> Sequence[tuple[int, str | None]]:
        """Numbers and spool files of the submitter's jobs in that state, except the newest `kept`; 1,000 at most.

        None whose file has not been put away: while it lies in active/, it has to be known.
        """
        theirs = jobs.c.submitter == submitter, jobs.c.state == state
        newest = select(jobs.c.id).where(*theirs).order_by(jobs.c.id.desc()).offset(kept).limit(1).scalar_subquery()
        unneeded = jobs.c.id <= newest, text(PUT_AWAY), without_active_group(), ~needed_by_others()
        query = select(jobs.c.id, jobs.c.spool_path).where(*theirs, *unneeded).order_by(jobs.c.id.desc()).limit(1000)
        with self.transaction() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def paused(self) -> bool:
        with self.transaction() as connection:
            return bool(connection.execute(select(queue.c.paused)).scalar_one())

    def identity(self) -> str:
        """Of the queue: a UUID that no other database has."""
        with self.transaction() as connection:
            return str(connection.execute(select(queue.c.identity)).scalar_one())

    def has_jobs(self) -> bool:
        """Whether any job is on record."""
        with self.transaction() as connection:
            return connection.execute(select(jobs.c.id).limit(1)).first() is not None

    def folder_owners(self, job_ids: Iterable[int]) -> Mapping[int, FolderOwner]:
        """Those of the jobs with these numbers that are on record. One that cannot be read counts as held."""
        found: dict[int, FolderOwner] = {}
        with self.transaction() as connection:
            for some in _in_portions(job_ids):
                query = select(jobs.c.id, jobs.c.vm_name, jobs.c.state, jobs.c.finished).where(jobs.c.id.in_(some))
                for number, vm_name, state, finished in connection.execute(query):
                    known = None if finished == UNKNOWN_TIME else known_state(state)
                    found[number] = FolderOwner(vm_name, known or State.HELD, finished)
        return found

    def killed_in_publish(self, after: datetime | None) -> Sequence[Job]:
        """The newest 500 jobs that failed or were cancelled in `publish` after that time, the newest first.

        Each of them may have left drafts in its output directory.
        """
        later = () if after is None else (jobs.c.finished > after,)
        over = select(jobs).where(text(ENDED_IN_PUBLISH), *later, jobs.c.migration.is_not(None))
        query = over.order_by(jobs.c.finished.desc())
        with self.transaction() as connection:
            return [job_of(row) for row in connection.execute(query.limit(500)).mappings()]

    def newest_time(self) -> datetime | None:
        """The latest time on record; None if there is none."""
        with self.transaction() as connection:
            newest: datetime | None = connection.execute(select(func.max(NEWEST_EVENTS.c.at))).scalar()
            return newest

    def spool_files_in_use(self) -> frozenset[str]:
        """The spool files of active jobs, relative to the spool directory. Those of retried jobs are not in active/."""
        retried = text(RETRIED_FILES)
        query = select(jobs.c.spool_path).where(jobs.c.spool_path.is_not(None) & is_active() | retried)
        with self.transaction() as connection:
            return frozenset(path.removeprefix(RETRIED) for path in connection.execute(query).scalars())


def _in_portions(job_ids: Iterable[int]) -> Iterator[Sequence[int]]:
    """A database limits the parameters of one query."""
    left = sorted(set(job_ids))
    while left:
        yield left[:500]
        left = left[500:]
