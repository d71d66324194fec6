"""The spool: files dropped into `incoming/` become jobs, and end in `done/`, `failed/` or `rejected/`.

A file is claimed by a rename into `active/`, under a unique name that is recorded in its job. Each move is on record
before it is made. Whenever the daemon dies, the next scan enters files that have no job, and completes or undoes moves.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import stat
import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hyper2kvmd import spec
from hyper2kvmd.config import SpoolFolder
from hyper2kvmd.daemon.complaints import Complaints
from hyper2kvmd.daemon.dropped import Dropped, being_written, duplicate, printable, read, unexpected
from hyper2kvmd.daemon.ignored import IgnoredFiles
from hyper2kvmd.daemon.incoming import Incoming
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.locks import OWN_FILES
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.names import kept, original
from hyper2kvmd.daemon.putting_away import PuttingAway
from hyper2kvmd.daemon.quota import FileState, Quota, in_turn
from hyper2kvmd.errors import Failure, InvalidInput
from hyper2kvmd.host.files import sync_folder
from hyper2kvmd.host.person import Person
from hyper2kvmd.jobs.changes import first_line
from hyper2kvmd.jobs.intake import RejectedFile
from hyper2kvmd.jobs.moves import Intent, Move, MoveKind
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission, Submitted, batch_name
from hyper2kvmd.model.jobs import Job, State
from hyper2kvmd.progress import problem

log = logging.getLogger(__name__)
trouble = logging.getLogger(f"{__name__}.trouble")
"""For messages that a submitter can cause again and again: journal.LIMITED."""

ACTIVE_SECONDS = 600.0
"""A claimed file is read after this time at the latest: its owner can still write to it through an open file."""
MAX_ENTERED = 200
"""Claimed files that are read in a scan and put on record in one transaction, which others wait for."""


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
        self._claims: dict[str, int] | None = None
        """The moves on record of files in active/ that have no job yet, by name; None before the first scan."""
        self._complaints = Complaints()
        self._putting_away = PuttingAway(spool_dir, store, self._complaints)
        self._quota = Quota(store)

    @property
    def quota(self) -> Quota:
        """Of submissions in all ways."""
        return self._quota

    def scan(self, arrived: Iterable[str] = ()) -> Scan:
        """Scan all folders once: about once a second, and again at once while files are left to be taken.

        `arrived` are files that were renamed into incoming/ just now: they are complete, and taken at once. That is a
        hint. The scan finds what no hint names, such as files of remote writers on NFS.

        A file that cannot be read, moved or understood affects no other file. Raises only the errors of the store.
        """
        if self._claims is None:
            self._recover()
        self._incoming.expect(arrived)
        more = self._claim_stable()
        entered, left = self._enter_claimed()
        self._putting_away.finish_removals()
        self._putting_away.take_back_retried()
        self._putting_away.put_away_ended()
        return Scan(entered, more or left)

    def _recover(self) -> None:
        """Find the claims of a daemon that died. They are completed by entering what lies in active/."""
        self._claims = {Path(str(move.target)).name: move.number for move in self._store.open_moves(MoveKind.CLAIM)}

    @property
    def ignored(self) -> IgnoredFiles:
        """The files in incoming/ that are no submissions."""
        return self._incoming.ignored.found

    # ------------------------------------------------------------ from incoming/ to active/

    def _claim_stable(self) -> bool:
        """Take stable files that are not open for writing, one of each owner in turn; return whether there are more.

        False if nothing could be taken: an immediate scan could not take anything either.
        """
        stable: dict[str, FileState] = {}
        with self._complaints.about(SpoolFolder.INCOMING):
            stable = self._incoming.stable_files()
        if not stable:
            return False
        claimed = self._claim_all(list(self._chosen(stable)))
        return self._quota.more and claimed > 0

    def _chosen(self, stable: Mapping[str, FileState]) -> Iterator[tuple[str, FileState]]:
        """The files to be taken in this scan."""
        folder = self._dir / SpoolFolder.INCOMING
        self._quota.begin_scan()
        for name in in_turn(stable, original):
            look = stable[name]
            if self._quota.allows(look.uid):
                with suppress(OSError):  # it is gone
                    if FileState.at(folder / name) == look and not being_written(folder / name):
                        self._quota.take(look.uid)  # a claim that fails costs a scan no less
                        yield name, look

    def _claim_all(self, chosen: Sequence[tuple[str, FileState]]) -> int:
        """Put the claims of these files on record, then make them; return how many succeeded."""
        places = [f"{SpoolFolder.ACTIVE}/{secrets.token_hex(6)}.{kept(name)}" for name, _ in chosen]
        named = zip(chosen, places, strict=True)
        intents = [Intent(MoveKind.CLAIM, f"{SpoolFolder.INCOMING}/{name}", place) for (name, _), place in named]
        failed: list[int] = []
        for move, (name, _) in zip(self._store.plan_moves(intents), chosen, strict=True):
            made = False
            with self._complaints.about(name):
                made = self._claim(move)
            if not made:
                failed.append(move.number)
        self._store.finish_moves(failed)
        return len(chosen) - len(failed)

    def _claim(self, move: Move) -> bool:
        path, claim = self._dir / move.source, self._dir / str(move.target)
        with suppress(FileNotFoundError):  # its owner took it back
            path.rename(claim)
            self._incoming.forget(path.name)
            claimed = FileState.at(claim)
            if stat.S_ISDIR(claimed.mode):  # it took the file's place just before
                claim.rename(path)
                return False
            self._active[claim.name] = claimed, time.monotonic()
            self._open_claims[claim.name] = move.number
            return True
        return False

    @property
    def _open_claims(self) -> dict[str, int]:
        assert self._claims is not None  # noqa: S101 - set by the first scan
        return self._claims

    # ------------------------------------------------------------ from a file to a job

    def _enter_claimed(self) -> tuple[int, bool]:
        """Put the claimed files on record in one transaction; return how many became jobs, and whether more are left.

        The renames are on the disk before: after a power cut no file is both on record and in incoming/.
        """
        claims, more = self._fresh_claims()
        if not claims:
            return 0, False
        for folder in (SpoolFolder.ACTIVE, SpoolFolder.INCOMING):
            synced = False
            with self._complaints.about(folder):
                sync_folder(self._dir / folder)
                synced = True
            if not synced:
                return 0, False
        known = self._store.known_claims(list(claims))
        files = list(self._files({claim: look for claim, look in claims.items() if claim not in known}))
        entered = [*known, *(str(_origin(file).claim) for file in files)]
        finished = [self._open_claims[claim] for claim in entered if claim in self._open_claims]
        results = self._store.enter(files, _refused, finished)
        jobs = sum(self._report(file, result) for file, result in zip(files, results, strict=True))
        self._forget(entered)
        return jobs, more

    def _files(self, claims: Mapping[str, FileState]) -> Iterator[list[Submission] | Refusal]:
        """What is to be put on record of these files, within the limits of their owners."""
        self._quota.begin_entering()
        for claim, look in claims.items():
            if not self._has_room(claim, look.uid):
                continue
            with self._complaints.about(claim):
                read = self._read(claim)
                if isinstance(read, Refusal):
                    yield read
                elif self._has_room(claim, look.uid, len(read)):
                    self._quota.count(look.uid, len(read))
                    yield read

    def _report(self, file: Sequence[Submission] | Refusal, result: list[Submitted] | RejectedFile | ValueError) -> int:
        """Log what became of a file; return the number of its jobs."""
        origin = _origin(file)
        if isinstance(result, ValueError):
            refusal = Refusal("", (unexpected(str(origin.name), result),), replace(origin, spool_group=None))
            (result,) = (RejectedFile(refusal, job) for job in self._store.reject_all([refusal]))
        if isinstance(result, RejectedFile):
            problems = result.refusal.problems
            JobLog(log, result.job.id).warning("%s rejected: %s", origin.name, first_line(problems))
            self._metrics.rejected(problems[0].code)
            self._metrics.ended(State.REJECTED, problems)
            return 0
        for one in result:
            JobLog(log, one.job.id).info("%s submitted by %s", origin.name, origin.submitter)
        self._quota.charge(origin.uid, len(result) - 1)
        return len(result)

    def _forget(self, claims: Collection[str]) -> None:
        """They are on record."""
        for claim in claims:
            self._entered.add(claim)
            self._open_claims.pop(claim, None)
            self._active.pop(claim, None)
            self._lengths.pop(claim, None)

    def _has_room(self, claim: str, uid: int, length: int | None = None) -> bool:
        """Whether its machines may become jobs; False for all further files of the owner of one that may not.

        A length that is known from an earlier scan saves reading the file again.
        """
        if length is not None:
            self._lengths[claim] = length
        return self._quota.has_room(uid, self._lengths.get(claim, 1))

    def _fresh_claims(self) -> tuple[dict[str, FileState], bool]:
        """Complete files in active/ that may not be on record yet, MAX_ENTERED at most, and whether there are more."""
        folder, now = self._dir / SpoolFolder.ACTIVE, time.monotonic()
        names: set[str] = set()
        with self._complaints.about(folder.name):
            names.update(set(os.listdir(folder)) - OWN_FILES)  # noqa: PTH208 - names, not paths, are what is compared
            self._undo_claims(names)
        self._entered &= names
        looks = self._looks(folder, names - self._entered)
        fresh: dict[str, FileState] = {}
        turn = in_turn(looks, original)
        for claim in itertools.islice(turn, MAX_ENTERED):
            with self._complaints.about(claim):
                look, since = self._active.get(claim, (None, now))
                complete = look == looks[claim] and not being_written(folder / claim)
                if complete or now - since > ACTIVE_SECONDS:
                    fresh[claim] = looks[claim]
                else:
                    self._active[claim] = looks[claim], since
        return fresh, len(looks) > MAX_ENTERED

    def _undo_claims(self, names: Collection[str]) -> None:
        """Forget claims on record that were not made, or whose file was removed from active/."""
        gone = {claim: number for claim, number in self._open_claims.items() if claim not in names}
        self._store.finish_moves(gone.values())
        for claim in gone:
            del self._open_claims[claim]

    def _read(self, claim: str) -> list[Submission] | Refusal:
        path = self._dir / SpoolFolder.ACTIVE / claim
        name = original(claim)
        owner = Person.of(path.lstat().st_uid)
        origin = Origin(submitter=owner.name, uid=owner.uid, name=name, claim=claim, path=f"active/{claim}")
        operates = owner.uid in (0, os.geteuid())
        try:
            dropped = read(owner, path, self._dir / SpoolFolder.INCOMING, Person.of(os.geteuid()))
            return _submissions(dropped, owner, replace(origin, operator=operates))
        except spec.Rejected as failure:
            return Refusal(Path(name).stem, failure.problems, origin)
        except Failure as failure:
            return Refusal(Path(name).stem, (problem(failure),), origin)
        except OSError:
            raise
        except Exception as error:  # whatever one file provokes, the others are served
            trouble.error("spool: %s: %s", name, printable("".join(traceback.format_exception(error))))
            return Refusal(Path(name).stem, (unexpected(name, error),), origin)

    def _looks(self, folder: Path, names: Iterable[str]) -> dict[str, FileState]:
        """The states of those of `names` that still exist."""
        looks: dict[str, FileState] = {}
        for name in names:
            with suppress(OSError):  # the file is gone, or the error shows when the folder is listed
                looks[name] = FileState.at(folder / name)
        return looks


def _origin(file: Sequence[Submission] | Refusal) -> Origin:
    return file.origin if isinstance(file, Refusal) else file[0].origin


def _refused(batch: Sequence[Submission], submitted: list[Submitted] | InvalidInput) -> Refusal | None:
    """Why a file with these machines is rejected after all."""
    origin = batch[0].origin
    if isinstance(submitted, InvalidInput):
        return Refusal(batch[0].migration.vm_name, (problem(submitted),), replace(origin, spool_group=None))
    active = next((one.job for one in submitted if not one.new), None)
    return None if active is None else _duplicate(origin, active)


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


def _duplicate(origin: Origin, job: Job) -> Refusal:
    what = f"{job.vm_name} in {origin.name}" if origin.spool_group else str(origin.name)
    return Refusal(job.vm_name, (duplicate(what, job),), replace(origin, spool_group=None))
