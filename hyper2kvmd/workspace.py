"""The working folder of one job: `conversion_dir/<vm_name>.<job_id>/`, mode 0700.

A live folder carries an flock on itself, held by the worker: a kernel fact that no stale pidfile can fake, for
the daemon's jobs and for one-shot runs alike.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed, TryLater, Unsafe

FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\.([0-9]+|[0-9]{8}T[0-9]{6}Z-[0-9]+)")
"""`<vm_name>.<job id>`, of the daemon's jobs and of one-shot runs. Nothing else in a conversion directory is ours."""


def ensure_private_dir(path: Path) -> None:
    """Create `path` and its parents if missing; the directory itself gets mode 0700 when we make it.

    Raises MigrationFailed (`directory-unusable`), or Unsafe (`directory-shared`) for an existing directory that
    others may write to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        mode = path.stat().st_mode
        usable = path.is_dir() and os.access(path, os.W_OK | os.X_OK)
    except OSError as error:
        raise MigrationFailed(
            "directory-unusable",
            f"the directory {path} cannot be created: {error.strerror}",
            hint="create it for this user, or name another one",
            kind=Kind.OPERATOR,
        ) from error
    if not usable:
        raise MigrationFailed(
            "directory-unusable",
            f"{path} is not a directory that this user may write to",
            hint="correct its owner and mode, or name another one",
            kind=Kind.OPERATOR,
        )
    if mode & 0o022:
        raise Unsafe(
            "directory-shared",
            f"the directory {path} may be written to by others",
            hint=f"chmod 0700 {path}, or name another conversion directory",
        )


@contextlib.contextmanager
def working_folder(conversion_dir: Path, vm_name: str, job_id: str) -> Iterator[Path]:
    """Hold the job's folder, locked, for the length of the block; it is gone afterwards, however the block ends.

    Only a killed worker leaves it behind, for the next attempt of the same job to go on from.
    """
    ensure_private_dir(conversion_dir)
    folder = conversion_dir / f"{vm_name}.{job_id}"
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryLater(
                "job-already-running",
                f"another process works in {folder}",
                hint="wait for it to end: two workers must never share a job",
            ) from error
        try:
            yield folder
        finally:
            with signals_held():
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


@contextlib.contextmanager
def as_before(*directories: Path) -> Iterator[None]:
    """Remove the directories that the block had to make, as far as they are empty at its end."""
    missing = {path for directory in directories for path in (directory, *directory.parents) if not path.exists()}
    try:
        yield
    finally:
        for path in sorted(missing, reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let a cleanup end before SIGTERM or SIGINT is delivered."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def orphans(conversion_dir: Path, live_job_ids: Collection[str], *, older_than_seconds: float) -> list[Path]:
    """Working folders that no process holds, no active job owns, and nothing touched for that long."""
    found = []
    if not conversion_dir.is_dir():
        return []
    for folder in sorted(conversion_dir.iterdir()):
        job_id = folder.name.rpartition(".")[2]
        if not FOLDER.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir() or job_id in live_job_ids:
            continue
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime >= older_than_seconds and not _is_locked(folder):
                found.append(folder)
    return found


def discard(folder: Path, is_abandoned: Callable[[], bool]) -> bool:
    """Remove an orphan, asked again once no worker can take it any more. False: somebody holds or owns it.

    Raises MigrationFailed (`leftover-not-removed`).
    """
    with _held(folder) as held:
        if not held or not is_abandoned():
            return False
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise not_removed(Path(error.filename or folder), error) from error
        return True


def not_removed(path: Path, error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "leftover-not-removed",
        f"{path} cannot be removed: {error.strerror}",
        hint="remove it as its owner or as root",
        kind=Kind.OPERATOR,
    )


def _is_locked(folder: Path) -> bool:
    with _held(folder) as held:
        return not held


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, if nobody else does and its owner lets us."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (PermissionError, FileNotFoundError):
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)
