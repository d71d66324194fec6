"""The working folders in a conversion directory: found, kept, put in quarantine and removed below one descriptor."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed, Unsafe
from hyper2kvmd.host import quarantine
from hyper2kvmd.host.person import lineage, name_of
from hyper2kvmd.host.removal import OPEN_DIRECTORY, detach_stale, remove_tree
from hyper2kvmd.host.workspace import (
    IMAGE_PREFIX,
    RECORD,
    REPLACED_DOMAIN,
    UPLOADING,
    follow_links,
    require_safe,
    unusable,
)

FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\.([0-9]+|[0-9]{8}T[0-9]{6}Z-[0-9]+)")
"""`<vm_name>.<job id>`, of the daemon's jobs and one-shot runs. Nothing else in a conversion directory is ours."""


@dataclass(frozen=True)
class UnusedFolder:
    """A working folder that no process holds."""

    name: str
    changed: float
    """Its mtime."""

    @property
    def job_id(self) -> int | None:
        """None for a one-shot run, whose folder is never used again."""
        number = self.name.rpartition(".")[2]
        return int(number) if number.isdecimal() else None


@contextlib.contextmanager
def open_conversion_dir(path: Path, owner: int) -> Iterator[ConversionDir]:
    """An existing conversion directory of the user `owner` or of this user, judged as in a run.

    Raises Unsafe (`directory-shared`), MigrationFailed (`directory-unusable`).
    """
    real = follow_links(path)
    try:
        handle = os.open(real, OPEN_DIRECTORY)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        rightful = os.geteuid() if os.fstat(handle).st_uid == os.geteuid() else owner
        for number, folder in enumerate(lineage(handle)):
            if number == 0:
                require_safe(path, folder, (rightful,))
            else:
                require_safe(path, folder, (0, rightful), sticky=stat.S_ISVTX)
        if name_of(handle) != real:
            raise Unsafe("directory-shared", f"{path}: was replaced while it was opened", hint="Retry the job")
        yield ConversionDir(real, handle)
    finally:
        os.close(handle)


def remove_killed_runs(conversion_dir: Path) -> tuple[Path, ...]:
    """Remove the working folders of this user's one-shot runs that were killed; returns their paths.

    The lock of a folder shows that its run has ended. Raises MigrationFailed (`leftover-not-removed`), and as
    `open_conversion_dir` does.
    """
    removed = []
    with open_conversion_dir(conversion_dir, os.geteuid()) as place:
        for folder in place.unused():
            if folder.job_id is None and place.discard(folder.name, lambda: True):
                removed.append(place.path / folder.name)
    return tuple(removed)


@dataclass(frozen=True)
class ConversionDir:
    """An open conversion directory. Its entries are found and removed below the descriptor."""

    path: Path
    handle: int

    def unused(self) -> tuple[UnusedFolder, ...]:
        """The working folders that no process holds. Those of other users, which this one cannot open, are omitted."""
        found = []
        for name in sorted(filter(FOLDER.fullmatch, os.listdir(self.handle))):  # noqa: PTH208 - of the descriptor
            with contextlib.suppress(FileNotFoundError):
                facts = os.stat(name, dir_fd=self.handle, follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode) and not self._is_locked(name):
                    found.append(UnusedFolder(name, facts.st_mtime))
        return tuple(found)

    def detach_stale_mounts(self, name: str, *, dry_run: bool = False) -> tuple[Path, ...]:
        """Detach the FUSE mounts in a folder that no process holds; returns their paths."""
        with self._held(name) as handle:
            return () if handle is None else detach_stale(handle, dry_run=dry_run)

    def unknown_since(self, name: str) -> float | None:
        """When the folder was first seen without a job; None if it is not in quarantine. Raises OSError."""
        with self._opened(name) as handle:
            return quarantine.unknown_since(handle)

    def begin_quarantine(self, name: str) -> None:
        """Raises OSError."""
        with self._opened(name) as handle:
            quarantine.mark(handle)

    def end_quarantine(self, name: str) -> None:
        """Raises OSError."""
        with self._opened(name) as handle:
            quarantine.clear(handle)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        handle = os.open(name, OPEN_DIRECTORY, dir_fd=self.handle)
        try:
            yield handle
        finally:
            os.close(handle)

    def keep(self, name: str) -> bool:
        """Restart the age of a working folder. False: it has nothing to continue from, or does not exist.

        Raises OSError.
        """
        try:
            handle = os.open(name, OPEN_DIRECTORY, dir_fd=self.handle)
        except FileNotFoundError:
            return False
        try:
            entries = os.listdir(handle)  # noqa: PTH208 - of the descriptor
            if not any(entry == RECORD or entry.startswith(IMAGE_PREFIX) for entry in entries):
                return False
            os.utime(handle)
            return True
        finally:
            os.close(handle)

    def is_needed(self, name: str) -> bool:
        """Whether the working folder has a note of what its worker has put elsewhere, for the next attempt."""
        return any(
            os.access(f"{name}/{note}", os.F_OK, dir_fd=self.handle, follow_symlinks=False)
            for note in (UPLOADING, REPLACED_DOMAIN)
        )

    def discard(self, name: str, is_abandoned: Callable[[], bool]) -> bool:
        """Remove a folder that no job needs, checked again under its lock. False: it is held or owned.

        Raises MigrationFailed (`leftover-not-removed`).
        """
        with self._held(name) as handle:
            if handle is None or not is_abandoned():
                return False
            try:
                detach_stale(handle)
                remove_tree(self.handle, name)
            except OSError as error:
                raise not_removed(self.path / name, error) from error
            return True

    def _is_locked(self, name: str) -> bool:
        with self._held(name) as handle:
            return handle is None

    @contextlib.contextmanager
    def _held(self, name: str) -> Iterator[int | None]:
        """The open folder, with its lock; None if someone else holds that, or we have no permission."""
        try:
            handle = os.open(name, OPEN_DIRECTORY, dir_fd=self.handle)
        except (PermissionError, FileNotFoundError):
            yield None
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield handle
        finally:
            os.close(handle)


def not_removed(path: Path, error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "leftover-not-removed",
        f"{path} cannot be removed: {error.strerror}",
        hint="Unmount what is mounted there, then run `h2kvmctl gc` again"
        if error.errno == errno.EBUSY
        else "Remove it as its owner or as root",
        kind=Kind.OPERATOR,
    )
