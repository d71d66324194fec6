"""Moves the files of finished and retried jobs. Each move is on record before it is made, and completed at the next
start if the daemon dies in between.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import hyper2kvmd
from hyper2kvmd.config import SpoolFolder
from hyper2kvmd.daemon import outcomes
from hyper2kvmd.daemon.complaints import Complaints
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.quota import KEPT
from hyper2kvmd.daemon.wire import Rejection
from hyper2kvmd.host.files import sync_folder
from hyper2kvmd.jobs.moves import Intent, Move, MoveKind
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job, State
from hyper2kvmd.model.outcome import Outcome

log = logging.getLogger(__name__)

FOLDERS = {
    State.SUCCEEDED: SpoolFolder.DONE,
    State.FAILED: SpoolFolder.FAILED,
    State.CANCELLED: SpoolFolder.FAILED,
    State.REJECTED: SpoolFolder.REJECTED,
}


@dataclass(frozen=True)
class _EndedFile:
    """A spool file whose jobs have all ended, and which is not in the folder of that."""

    holder: Job
    """The job that has the path of the file on record."""
    path: str
    """Relative to the spool directory."""
    members: Sequence[Job]

    @property
    def keeper(self) -> Job:
        """The job that says where the file belongs: the first one without success, else the first one."""
        return next((one for one in self.members if one.state is not State.SUCCEEDED), self.members[0])

    @property
    def ending(self) -> str:
        """Differs for each end of its jobs: one that is retried ends again."""
        ends = [one.finished for one in self.members if one.finished is not None]
        return f"{self.keeper.id} {self.keeper.state.value} {max(ends).isoformat() if ends else ''}"


class PuttingAway:
    def __init__(self, spool_dir: Path, store: Store, complaints: Complaints) -> None:
        self._dir, self._store, self._complaints = spool_dir, store, complaints
        self._removes = True
        """Whether removals may be on record."""

    def take_back_retried(self) -> None:
        """Move the files of jobs that were retried back to active/, and remove the outcomes of their last end."""
        moved: dict[int, str | None] = {}
        folders: set[Path] = set()
        for job_id, path, claim in self._store.retried():
            with self._complaints.about(path):
                claimed = self._dir / SpoolFolder.ACTIVE / claim
                with suppress(FileNotFoundError):  # moved already, or gone
                    (self._dir / path).rename(claimed)
                outcomes.remove(self._dir / path)
                folders |= {claimed.parent, (self._dir / path).parent}
                moved[job_id] = f"{SpoolFolder.ACTIVE}/{claim}" if claimed.exists() else None
        if moved and self._synced(folders):
            self._store.move_spool_files(moved)

    def put_away_ended(self) -> None:
        """Move the files of finished jobs to their folders, and remove the oldest ones beyond KEPT."""
        files = {file.holder.id: file for file in self._ended_files()}
        ready: list[tuple[_EndedFile, Move]] = []
        for move in self._store.open_moves(MoveKind.PUT_AWAY):
            file = files.get(move.job_id or 0)
            if file and (file.path, file.ending) == (move.source, move.ending) and not self._is_blocked(move):
                ready.append((files.pop(file.holder.id), move))
            else:
                with self._complaints.about(move.source):
                    self._abandon(move)
        taken = {self._dir / str(move.target) for _, move in ready}
        taken |= {self._dir / one.path for one in self._store.retried()}  # until it is on record that they are gone
        ready += self._planned(list(files.values()), taken)
        self._make(ready)
        for submitter, state in sorted({(one.submitter, one.state) for file, _ in ready for one in file.members}):
            self._forget_surplus(submitter, state)

    def finish_removals(self) -> None:
        """Remove files of jobs that were forgotten, if the daemon died before, or the database did not respond.

        Call it before other files are put away: a file that got the name of a removed one would be removed instead.
        """
        if self._removes:
            self._remove(self._store.open_moves(MoveKind.REMOVE))

    # ------------------------------------------------------------ what has to be moved

    def _ended_files(self) -> Iterator[_EndedFile]:
        misplaced = self._store.misplaced()
        groups = self._store.spool_groups([one.group for one in misplaced if one.group])
        for job, path, group in misplaced:
            members = groups.get(group or "", (job,))
            if not any(member.state.active for member in members):
                yield _EndedFile(job, path, members)

    def _planned(self, files: Sequence[_EndedFile], taken: set[Path]) -> list[tuple[_EndedFile, Move]]:
        """Put the moves of these files on record. The places `taken` are those of moves on record."""
        intents: list[Intent] = []
        planned: list[_EndedFile] = []
        for file in files:
            with self._complaints.about(file.path):
                place = self._place(file, taken)
                if place is None:
                    JobLog(log, file.keeper.id).warning("its spool file %s is gone", Path(file.path).name)
                    self._store.move_spool_files({file.holder.id: None})
                    continue
                taken.add(place)
                target = str(place.relative_to(self._dir))
                intents.append(Intent(MoveKind.PUT_AWAY, file.path, target, file.holder.id, file.ending))
                planned.append(file)
        return list(zip(planned, self._store.plan_moves(intents), strict=True))

    def _is_blocked(self, move: Move) -> bool:
        """Whether another file has got the place, as it may after a restore of the database."""
        source, target = self._dir / move.source, self._dir / str(move.target)
        return source != target and os.path.lexists(source) and os.path.lexists(target)

    def _place(self, file: _EndedFile, taken: Collection[Path]) -> Path | None:
        """Where the file goes; None if it is gone.

        An earlier version moved files without a record: then the file lies beside the outcome of its job.
        """
        path, keeper = self._dir / file.path, file.keeper
        places = self._places(FOLDERS[keeper.state], keeper.spool_name or path.name, keeper.id)
        if os.path.lexists(path):
            return next(one for one in places if one == path or (one not in taken and not _is_taken(one)))
        there = itertools.takewhile(os.path.lexists, places)
        return next((one for one in there if outcomes.belongs_to(one, keeper.id)), None)

    def _places(self, folder: str, name: str, job_id: int) -> Iterator[Path]:
        """Paths for `name` in `folder`, in the order in which they are tried: if necessary with the job's number."""
        suffix = Path(name).suffix
        unique = ".".join((Path(name).stem, str(job_id)))
        yield self._dir / folder / name
        yield self._dir / folder / f"{unique}{suffix}"
        for number in itertools.count(2):
            yield self._dir / folder / f"{unique}.{number}{suffix}"

    # ------------------------------------------------------------ the moves

    def _make(self, ready: Sequence[tuple[_EndedFile, Move]]) -> None:
        moved: dict[int, str | None] = {}
        finished: list[int] = []
        folders: set[Path] = set()
        for file, move in ready:
            with self._complaints.about(file.path):
                path = self._put_away(file, self._dir / move.source, self._dir / str(move.target))
                moved |= {file.holder.id: None, file.keeper.id: path}
                finished.append(move.number)
                folders |= {(self._dir / move.source).parent, (self._dir / str(move.target)).parent}
        if finished and self._synced(folders):
            self._store.move_spool_files(moved, finished)

    def _put_away(self, file: _EndedFile, source: Path, target: Path) -> str | None:
        """Move the file to its place, where its outcome is written first.

        Returns the path, relative to the spool directory; None if the file is gone.
        """
        if os.path.lexists(source):
            outcomes.write(target, self._outcome(file, source.name), file.keeper.submitter_uid)
            source.rename(target)
        elif not os.path.lexists(target):
            JobLog(log, file.keeper.id).warning("its spool file %s is gone", source.name)
            outcomes.remove(target)
            return None
        if source != target:
            outcomes.remove(source)
        return str(target.relative_to(self._dir))

    def _abandon(self, move: Move) -> None:
        """Undo a move whose reason is gone, because its job was retried; or keep what was done of it."""
        source, target = self._dir / move.source, self._dir / str(move.target)
        moved: Mapping[int, str | None] = {}
        if source != target and not os.path.lexists(source) and os.path.lexists(target) and move.job_id is not None:
            moved = {move.job_id: move.target}
        elif source != target and not os.path.lexists(target):
            outcomes.remove(target)
        self._store.move_spool_files(moved, [move.number])

    def _outcome(self, file: _EndedFile, name: str) -> Outcome | Rejection:
        keeper = file.keeper
        name = keeper.spool_name or name
        if keeper.state is State.REJECTED:
            return Rejection(file=name, job_id=keeper.id, problems=keeper.problems)
        return Outcome.of(hyper2kvmd.__version__, name, keeper, self._store.endings([one.id for one in file.members]))

    def _forget_surplus(self, submitter: str, state: State) -> None:
        surplus = self._store.surplus(submitter, state, KEPT[state])
        if surplus:
            self._removes = True
            self._remove(self._store.forget_jobs([job_id for job_id, _ in surplus]))

    def _remove(self, moves: Sequence[Move]) -> None:
        finished: list[int] = []
        for move in moves:
            with self._complaints.about(move.source):
                path = self._dir / move.source
                path.unlink(missing_ok=True)
                outcomes.remove(path)
                finished.append(move.number)
        self._store.finish_moves(finished)
        self._removes = len(finished) < len(moves)

    def _synced(self, folders: Collection[Path]) -> bool:
        """Whether the moves are on the disk; else they are repeated by the next scan."""
        for folder in sorted(folders):
            with self._complaints.about(folder.name):
                sync_folder(folder)
                continue
            return False
        return True


def _is_taken(place: Path) -> bool:
    return os.path.lexists(place) or outcomes.exist(place)
