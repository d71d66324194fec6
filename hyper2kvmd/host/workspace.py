"""The working folder of one job: `conversion_dir/<vm_name>.<job_id>/`, mode 0700.

A live folder carries an flock on itself, held by the worker: a kernel fact that no stale pidfile can fake, for
the daemon's jobs and for one-shot runs alike.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import stat
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed, TryLater, Unsafe
from hyper2kvmd.host.person import Person, strangers_may_write

FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\.([0-9]+|[0-9]{8}T[0-9]{6}Z-[0-9]+)")
"""`<vm_name>.<job id>`, of the daemon's jobs and of one-shot runs. Nothing else in a conversion directory is ours."""


def ensure_private_dir(path: Path) -> None:
    """Create `path`, which has no link in it, and its parents if missing; the directory itself gets mode 0700 then.

    All that is done in there is done by name, so nobody else may be able to put something in its place: Unsafe
    (`directory-shared`) unless it is this user's, every folder above it this user's or root's, and none writable by
    others (above it, but with the sticky bit). Raises MigrationFailed (`directory-unusable`) as well.
    """
    try:
        for folder in reversed(path.parents):
            _make(folder, 0o755)
            _require_safe(path, folder, (0, os.geteuid()), sticky=stat.S_ISVTX)
        _make(path, 0o700)
        _require_safe(path, path, (os.geteuid(),))
        require_writable(path)
    except OSError as error:
        raise MigrationFailed(
            "directory-unusable",
            f"the directory {path} cannot be used: {error.strerror}",
            hint=way_to_write(path, error),
            kind=Kind.OPERATOR,
        ) from error


def real_conversion_dir(named: Path, allowed: tuple[Path, ...]) -> Path:
    """`named` with its links followed.

    Raises Unsafe (`path-not-allowed`) unless it is written as one of `allowed`; an empty list allows any. A link of the
    submitter's that leads to one of them could lead elsewhere later.
    """
    if allowed and named not in allowed:
        raise Unsafe(
            "path-not-allowed",
            f"{named}: the daemon's configuration does not allow this conversion_dir",
            hint="leave conversion_dir out, or let an administrator add it to allowed_conversion_dirs",
        )
    return Path(os.path.realpath(named))


def require_writable(directory: Path) -> None:
    """Raises OSError that says why not."""
    if not os.access(directory, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code))


def way_to_write(directory: Path, error: OSError) -> str:
    """The remedy for a directory that cannot be made, or written to."""
    if error.errno == errno.EROFS:
        return (
            f"mount it for writing; where the service's unit keeps it read-only, add ReadWritePaths={directory} to it "
            "in a drop-in (systemctl edit)"
        )
    return "create it for the user that runs the migration, or name another one"


def _make(folder: Path, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode)


def _require_safe(path: Path, folder: Path, owners: tuple[int, ...], sticky: int = 0) -> None:
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if facts.st_uid in owners and (facts.st_mode & sticky or not strangers_may_write(folder)):
        return
    owner = Person.of(facts.st_uid).name
    rightful = owner if facts.st_uid in owners else Person.of(owners[0]).name
    raise Unsafe(
        "directory-shared",
        f"the conversion directory {path} is not safe from others: {folder} belongs to {owner}, "
        f"mode {stat.S_IMODE(facts.st_mode):04o}",
        hint=f"give {folder} to {rightful} and close it to others (chown, chmod go-w), or name a directory elsewhere",
    )


@contextlib.contextmanager
def working_folder(conversion_dir: Path, vm_name: str, job_id: str) -> Iterator[Path]:
    """Hold the job's folder, locked, for the length of the block; it is gone afterwards, however the block ends.

    Only a killed worker leaves it behind, for the next attempt of the same job to go on from. Raises as
    `ensure_private_dir` does.
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
