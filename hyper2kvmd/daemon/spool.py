"""The spool: files dropped into `incoming/` become jobs, and end in `done/`, `failed/` or `rejected/`.

A file is claimed by a rename into `active/`, under a unique name that is recorded in its job. Whenever the daemon dies,
the next scan enters files that have no job, and moves the files of finished jobs that are still to be moved.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import hyper2kvmd
from hyper2kvmd import spec
from hyper2kvmd.config import SpoolFolder
from hyper2kvmd.daemon import outcomes
from hyper2kvmd.daemon.dropped import Dropped, being_written, duplicate, read
from hyper2kvmd.daemon.ignored import IgnoredFiles
from hyper2kvmd.daemon.incoming import Incoming
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.names import kept, original
from hyper2kvmd.daemon.quota import KEPT, FileState, Quota, in_turn
from hyper2kvmd.daemon.wire import Rejection
from hyper2kvmd.errors import Failure, InvalidInput
from hyper2kvmd.host.person import Person
from hyper2kvmd.jobs.changes import first_line
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission, batch_name
from hyper2kvmd.model.jobs import Job, State
from hyper2kvmd.model.outcome import Outcome
from hyper2kvmd.progress import problem

log = logging.getLogger(__name__)
trouble = logging.getLogger(f"{__name__}.trouble")
"""For messages that a submitter can cause again and again: journal.LIMITED."""

ACTIVE_SECONDS = 600.0
"""A claimed file is read after this time at the latest: its owner can still write to it through an open file."""
MAX_ENTERED = 1000
"""Claimed files that are read in a scan."""
MAX_COMPLAINTS = 1000
"""Logged errors that are remembered, so that they are not repeated."""
FOLDERS = {
    State.SUCCEEDED: SpoolFolder.DONE,
    State.FAILED: SpoolFolder.FAILED,
    State.CANCELLED: SpoolFolder.FAILED,
    State.REJECTED: SpoolFolder.REJECTED,
}


@dataclass(frozen=True)
class Scan:
    jobs: int
    """Files that became jobs."""
    more: bool
    """Whether the next scan would take more stable files, so that it need not wait."""


class Spool:
    def __init__(self, spool_dir: Path, store: Store, metrics: Metrics) -> None:
        self._dir, self._store, self._metrics = spool_dir, store, metrics
        self._incoming = Incoming(spool_dir / SpoolFolder.INCOMING)
        self._active: dict[str, tuple[FileState, float]] = {}
        """The last state of each file in active/, and since when it is known (monotonic)."""
        self._entered: set[str] = set()
        self._lengths: dict[str, int] = {}
        """How many machines are in a file in active/ that waits for room in its owner's limits."""
        self._complaints: dict[str, str] = {}
        self._quota = Quota(store)

    @property
    def quota(self) -> Quota:
        """Of submissions in all ways."""
        return self._quota

    def scan(self) -> Scan:
        """Scan all folders once: about once a second, and again at once while files are left to be taken.

        inotify could not replace this: it misses remote writers on NFS, reports incomplete files, and loses events.
        A file that cannot be read, moved or understood affects no other file. Raises only the errors of the store.
        """
        more = self._claim_stable()
        jobs = self._enter_claimed()
        self._take_back_retried()
        self._put_away_ended()
        return Scan(jobs, more)

    @property
    def ignored(self) -> IgnoredFiles:
        """The files in incoming/ that are no submissions."""
        return self._incoming.ignored.found

    # ------------------------------------------------------------ from incoming/ to active/

    def _claim_stable(self) -> bool:
        """Take stable files that are not open for writing, one of each owner in turn; return whether there are more.

        False if nothing could be taken: an immediate scan could not take anything either.
        """
        folder, claimed = self._dir / SpoolFolder.INCOMING, 0
        stable: dict[str, FileState] = {}
        with self._complaining(folder.name):
            stable = self._incoming.stable_files()
        if not stable:
            return False
        self._quota.begin_scan()
        for name in in_turn(stable, original):
            if self._quota.allows(stable[name].uid):
                with self._complaining(name):
                    claimed += self._claim(folder / name, stable[name])
        return self._quota.more and claimed > 0

    def _claim(self, path: Path, look: FileState) -> bool:
        if FileState.at(path) != look or being_written(path):
            return False
        claim = self._dir / SpoolFolder.ACTIVE / f"{secrets.token_hex(6)}.{kept(path.name)}"
        self._quota.take(look.uid)  # a claim that fails costs a scan no less
        path.rename(claim)
        self._incoming.forget(path.name)
        claimed = FileState.at(claim)
        if stat.S_ISDIR(claimed.mode):  # it took the file's place just before
            claim.rename(path)
            return False
        self._active[claim.name] = claimed, time.monotonic()
        return True

    # ------------------------------------------------------------ from a file to a job

    def _enter_claimed(self) -> int:
        """Put the claimed files on record, in few transactions; return how many became jobs."""
        claims = self._fresh_claims()
        known = self._store.known_claims(list(claims))
        asked: list[list[Submission]] = []
        refused: list[Refusal] = []
        self._quota.begin_entering()
        for claim, look in claims.items():
            if claim in known or sum(map(len, asked)) >= MAX_ENTERED or not self._has_room(claim, look.uid):
                continue
            with self._complaining(claim):
                read = self._read(claim)
                if isinstance(read, Refusal):
                    refused.append(read)
                elif self._has_room(claim, look.uid, len(read)):
                    self._quota.count(look.uid, len(read))
                    asked.append(read)
        jobs = 0
        for batch, submitted in zip(asked, self._store.submit_all(asked), strict=True):
            origin = batch[0].origin
            if isinstance(submitted, InvalidInput):
                name, fact = batch[0].migration.vm_name, problem(submitted)
                refused.append(Refusal(name, (fact,), replace(origin, spool_group=None)))
                continue
            active = next((one.job for one in submitted if not one.new), None)
            if active is not None:
                refused.append(_duplicate(origin, active))
                continue
            for one in submitted:
                JobLog(log, one.job.id).info("%s submitted by %s", origin.name, origin.submitter)
            self._quota.charge(origin.uid, len(batch) - 1)
            jobs += len(batch)
        for refusal, job in zip(refused, self._store.reject_all(refused), strict=True):
            JobLog(log, job.id).warning("%s rejected: %s", refusal.origin.name, first_line(refusal.problems))
            self._metrics.rejected(refusal.problems[0].code)
            self._metrics.ended(State.REJECTED, refusal.problems)
        origins = [*(batch[0].origin for batch in asked), *(one.origin for one in refused)]
        for claim in (*known, *(str(origin.claim) for origin in origins)):
            self._entered.add(claim)
            self._active.pop(claim, None)
            self._lengths.pop(claim, None)
        return jobs

    def _has_room(self, claim: str, uid: int, length: int | None = None) -> bool:
        """Whether its machines may become jobs; False for all further files of the owner of one that may not.

        A length that is known from an earlier scan saves reading the file again.
        """
        if length is not None:
            self._lengths[claim] = length
        return self._quota.has_room(uid, self._lengths.get(claim, 1))

    def _fresh_claims(self) -> dict[str, FileState]:
        """Complete files in active/ that may not be on record yet, MAX_ENTERED at most."""
        folder, now = self._dir / SpoolFolder.ACTIVE, time.monotonic()
        names: set[str] = set()
        with self._complaining(folder.name):
            names.update(os.listdir(folder))  # noqa: PTH208 - names, not paths, are what is compared
        self._entered &= names
        looks = self._looks(folder, names - self._entered)
        fresh: dict[str, FileState] = {}
        for claim in itertools.islice(in_turn(looks, original), MAX_ENTERED):
            with self._complaining(claim):
                look, since = self._active.get(claim, (None, now))
                complete = look == looks[claim] and not being_written(folder / claim)
                if complete or now - since > ACTIVE_SECONDS:
                    fresh[claim] = looks[claim]
                else:
                    self._active[claim] = looks[claim], since
        return fresh

    def _read(self, claim: str) -> list[Submission] | Refusal:
        path = self._dir / SpoolFolder.ACTIVE / claim
        name = original(claim)
        stem = Path(name).stem
        owner = Person.of(path.lstat().st_uid)
        origin = Origin(submitter=owner.name, uid=owner.uid, name=name, claim=claim, path=f"active/{claim}")
        operates = owner.uid in (0, os.geteuid())
        try:
            dropped = read(owner, path, self._dir / SpoolFolder.INCOMING, Person.of(os.geteuid()))
        except spec.Rejected as failure:
            return Refusal(stem, failure.problems, origin)
        except Failure as failure:
            return Refusal(stem, (problem(failure),), origin)
        return _submissions(dropped, owner, replace(origin, operator=operates))

    # ------------------------------------------------------------ at the end

    def _take_back_retried(self) -> None:
        """Move the files of jobs that were retried back to active/, and remove the outcomes of their last end."""
        moved: dict[int, str | None] = {}
        for job_id, path, claim in self._store.retried():
            with self._complaining(path):
                claimed = self._dir / SpoolFolder.ACTIVE / claim
                with suppress(FileNotFoundError):  # moved already, or gone
                    (self._dir / path).rename(claimed)
                outcomes.remove(self._dir / path)
                moved[job_id] = f"{SpoolFolder.ACTIVE}/{claim}" if claimed.exists() else None
        self._store.move_spool_files(moved)

    def _put_away_ended(self) -> None:
        """Move the files of finished jobs to their folders, and remove the oldest ones beyond KEPT."""
        moved: dict[int, str | None] = {}
        ended: set[tuple[str, State]] = set()
        misplaced = self._store.misplaced()
        groups = self._store.spool_groups([one.group for one in misplaced if one.group])
        for job, path, group in misplaced:
            members = groups.get(group or "", (job,))
            if any(member.state.active for member in members):
                continue
            with self._complaining(path):
                keeper = _keeper(members)
                moved |= {job.id: None, keeper.id: self._put_away(keeper, members, self._dir / path)}
                ended |= {(member.submitter, member.state) for member in members}
        self._store.move_spool_files(moved)
        for submitter, state in sorted(ended):
            self._forget_surplus(submitter, state)

    def _put_away(self, keeper: Job, members: Sequence[Job], path: Path) -> str | None:
        """Move the file to the folder of its outcome, which is written first.

        Returns the new path, relative to the spool directory; None if the file is gone. After a death in between, the
        next scan writes the same outcome again, or finds the file beside it.
        """
        places = self._places(FOLDERS[keeper.state], keeper.spool_name or path.name, keeper.id)
        if os.path.lexists(path):
            place = next(place for place in places if place == path or not os.path.lexists(place))
            outcomes.write(place, self._outcome(keeper, members, path.name), keeper.submitter_uid)
            path.rename(place)
        else:
            there = itertools.takewhile(os.path.lexists, places)
            moved = next((place for place in there if outcomes.belongs_to(place, keeper.id)), None)
            if moved is None:
                JobLog(log, keeper.id).warning("its spool file %s is gone", path.name)
                return None
            place = moved
        if path != place:
            outcomes.remove(path)
        return str(place.relative_to(self._dir))

    def _outcome(self, keeper: Job, members: Sequence[Job], name: str) -> Outcome | Rejection:
        name = keeper.spool_name or name
        if keeper.state is State.REJECTED:
            return Rejection(file=name, job_id=keeper.id, problems=keeper.problems)
        return Outcome.of(hyper2kvmd.__version__, name, keeper, self._store.endings([one.id for one in members]))

    def _places(self, folder: str, name: str, job_id: int) -> Iterator[Path]:
        """Paths for `name` in `folder`, in the order in which they are tried: if necessary with the job's number."""
        suffix = Path(name).suffix
        unique = ".".join((Path(name).stem, str(job_id)))
        yield self._dir / folder / name
        yield self._dir / folder / f"{unique}{suffix}"
        for number in itertools.count(2):
            yield self._dir / folder / f"{unique}.{number}{suffix}"

    def _forget_surplus(self, submitter: str, state: State) -> None:
        surplus = self._store.surplus(submitter, state, KEPT[state])
        for path in (self._dir / path for _, path in surplus if path is not None):
            with self._complaining(path.name):
                path.unlink(missing_ok=True)
                outcomes.remove(path)
        if surplus:
            self._store.forget_jobs([job_id for job_id, _ in surplus])

    # ------------------------------------------------------------ trouble

    def _looks(self, folder: Path, names: Iterable[str]) -> dict[str, FileState]:
        """The states of those of `names` that still exist."""
        looks: dict[str, FileState] = {}
        for name in names:
            with suppress(OSError):  # the file is gone, or the error shows when the folder is listed
                looks[name] = FileState.at(folder / name)
        return looks

    @contextmanager
    def _complaining(self, name: str) -> Iterator[None]:
        """Log an error of one file once, without an effect on other files."""
        try:
            yield
        except OSError as error:
            if len(self._complaints) >= MAX_COMPLAINTS:
                self._complaints.clear()
            if self._complaints.get(name) != error.strerror:
                self._complaints[name] = str(error.strerror)
                trouble.error("spool: %s: %s; it will be retried", kept(name), error.strerror)
        else:
            self._complaints.pop(name, None)


def _submissions(dropped: Dropped, owner: Person, origin: Origin) -> list[Submission]:
    """One for each machine of a file. The first one has the file; a file of several is a group."""
    machines, rest = dropped.machines, replace(origin, claim=None, path=None)
    if len(machines) > 1:
        origin, rest = replace(origin, spool_group=origin.claim), replace(rest, spool_group=origin.claim)
    batch = batch_name([machine.migration for machine in machines], Path(str(origin.name)).stem)
    return [
        Submission(machine.migration, key, rest if number else origin, machine.notes, batch)
        for number, (machine, key) in enumerate(zip(machines, dropped.keys(owner), strict=True))
    ]


def _keeper(members: Sequence[Job]) -> Job:
    """The job of a file that says where it belongs: the first one without success, else the first one."""
    return next((one for one in members if one.state is not State.SUCCEEDED), members[0])


def _duplicate(origin: Origin, job: Job) -> Refusal:
    what = f"{job.vm_name} in {origin.name}" if origin.spool_group else str(origin.name)
    return Refusal(job.vm_name, (duplicate(what, job),), replace(origin, spool_group=None))
