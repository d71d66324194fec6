"""Working folders from which a retry continues: which are kept, and which are removed when a job needs their space."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.space import Shortage, freed_by_removal
from hyper2kvmd.errors import Failure, MigrationFailed, NotFound, Unsafe
from hyper2kvmd.host.conversion_dir import ConversionDir, open_conversion_dir
from hyper2kvmd.host.workspace import real_conversion_dir
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job, Problem, State, leaves_no_image

log = logging.getLogger(__name__)


Place = tuple[int, int]
"""The place of a job in the queue: jobs with smaller ones come first."""


def place_of(job: Job) -> Place:
    return -job.priority, job.id


@dataclass(frozen=True)
class KeptFolder:
    """A working folder that no running job needs."""

    path: Path
    device: int
    kept_since: float
    freed_bytes: int
    """Space that its removal frees."""
    held: bool = False
    """Its job is held."""
    place: Place | None = None
    """That of its job, if it is in the queue and waits for space."""

    @property
    def job_id(self) -> int:
        return int(self.path.name.rpartition(".")[2])

    @property
    def removal_rank(self) -> tuple[float, ...]:
        """Folders with smaller ranks are removed first: of ended jobs, of held jobs, then of jobs that wait.

        Of ended and held jobs the oldest folder goes first, of waiting jobs that of the last one in the queue.
        """
        if self.place is None:
            return (self.held, self.kept_since)
        return (2, *(-part for part in self.place))


def can_go_on(problems: Iterable[Problem]) -> bool:
    """Whether another attempt can use the images of an attempt that ended with these problems."""
    return not any(leaves_no_image(one.kind, one.code) for one in problems)


def keep_or_remove(named: Path, allowed: tuple[Path, ...], name: str, *, wanted: bool) -> bool:
    """Keep the working folder `name` if an attempt can continue from it, else remove it; return whether it is kept.

    It is kept if `wanted`, or if it has a note of what its worker has put elsewhere, which the next attempt needs.
    `named` and `allowed` are as for `real_conversion_dir`.
    """
    try:
        conversion_dir = real_conversion_dir(named, allowed)
        if not (conversion_dir / name).is_dir():
            return False
    except (Failure, OSError):  # the job cannot use the directory either
        return False
    try:
        with open_conversion_dir(conversion_dir, os.geteuid()) as directory:
            if (wanted or directory.is_needed(name)) and directory.keep(name):
                return True
            directory.discard(name, lambda: True)
    except (Failure, OSError) as failure:
        job_id = name.rpartition(".")[2]
        JobLog(log, job_id).warning("its working folder stays until `h2kvmctl gc` removes it: %s", failure)
    return False


def sufficient(folders: Iterable[KeptFolder], shortage: Shortage, *, all_needed: bool = True) -> Sequence[KeptFolder]:
    """The folders to remove to end the shortage, by their `removal_rank`.

    No folder if all together are not enough, unless `all_needed` is False.
    """
    chosen: list[KeptFolder] = []
    gained = 0
    for folder in sorted(folders, key=lambda folder: folder.removal_rank):
        if gained < shortage.missing and folder.device == shortage.device and folder.freed_bytes:
            chosen.append(folder)
            gained += folder.freed_bytes
    return chosen if gained >= shortage.missing or not all_needed else ()


class Kept:
    """The kept folders of one daemon. Its methods block: call them in a thread. They may raise the store's errors."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stuck: set[Path] = set()
        """Folders that could not be removed; their space is not counted."""

    def folders(self, directories: Iterable[Path], waiting: Mapping[int, Place]) -> tuple[KeptFolder, ...]:
        """Kept folders in the given conversion directories; `waiting` are the jobs that wait for space."""
        found: list[KeptFolder] = []
        for conversion_dir in directories:
            with contextlib.suppress(Failure, OSError), open_conversion_dir(conversion_dir, os.geteuid()) as directory:
                found += self._below(directory, waiting)
        return tuple(found)

    def _below(self, directory: ConversionDir, waiting: Mapping[int, Place]) -> Iterator[KeptFolder]:
        """Without folders that no job on record knows: `h2kvmctl gc` removes them after a quarantine.

        Without those with a note that the next attempt of an active job needs.
        """
        unused = [one for one in directory.unused() if directory.path / one.name not in self._stuck]
        owners = self._store.folder_owners(one.job_id for one in unused if one.job_id is not None)
        for folder in unused:
            owner = None if folder.job_id is None else owners.get(folder.job_id)
            if folder.job_id is None or owner is None or not owner.owns(folder.name, folder.job_id):
                continue
            held = owner.state is State.HELD
            if owner.state.active and (directory.is_needed(folder.name) or not (held or folder.job_id in waiting)):
                continue
            path = directory.path / folder.name
            with contextlib.suppress(FileNotFoundError):
                yield KeptFolder(
                    path=path,
                    device=path.lstat().st_dev,
                    kept_since=folder.changed,
                    freed_bytes=freed_by_removal(path),
                    held=held,
                    place=None if held else waiting.get(folder.job_id),
                )

    def remove(self, folders: Iterable[KeptFolder], why: str) -> bool:
        """Remove the folders whose job was not started meanwhile; return whether any was removed."""
        removed = [self._remove(folder, why) for folder in folders]
        return any(removed)

    def _remove(self, folder: KeptFolder, why: str) -> bool:
        joblog = JobLog(log, folder.job_id)
        try:
            with open_conversion_dir(folder.path.parent, os.geteuid()) as directory:
                if not directory.discard(folder.path.name, lambda: self._is_unused(folder)):
                    return False
        except (MigrationFailed, Unsafe, OSError) as failure:
            self._stuck.add(folder.path)
            joblog.warning("its working folder cannot be removed: %s", failure)
            return False
        joblog.warning("its working folder was removed: %s", why)
        self._store.note_removed_folder(folder.job_id, why)
        return True

    def _is_unused(self, folder: KeptFolder) -> bool:
        try:
            state = self._store.get(folder.job_id).state
        except NotFound:  # `gc` has forgotten it meanwhile
            return False
        if folder.place is not None:
            return state is State.QUEUED or not state.active
        return state is State.HELD if folder.held else not state.active
