"""The working folder of one job: `conversion_dir/<vm_name>.<job_id>/`, mode 0700.

The worker holds an flock on the folder while it runs, for jobs of the daemon and for one-shot runs. Unlike a pidfile,
such a lock is never stale.
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
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed, TryLater, Unsafe
from hyper2kvmd.host import quarantine
from hyper2kvmd.host.files import sync_folder, write_durably
from hyper2kvmd.host.person import Person, name_of, strangers_may_write
from hyper2kvmd.host.removal import OPEN_DIRECTORY, detach_stale, remove_tree

IMAGE_PREFIX = "disk"
"""The prefix of the names of a working folder's images and their checkpoints."""
UPLOADING = "uploading.json"
"""A file in a working folder that lists what its worker has uploaded so far. It is left after a kill only."""
PLACING = "placing.json"
"""A file in a working folder that lists what its worker gives names in the output directory."""
REGISTERING = "registering.json"
"""The same of the files of `register`."""
REPLACED_DOMAIN = "replaced.xml"
"""A file in a working folder with the definition of the domain that its machine replaces."""
RECORD = "finished.json"
"""A file in a working folder with the results of the finished stages."""
PURPOSE = "purpose"
"""A file in a working folder with a digest of the folder's purpose."""
SCRATCH = re.compile(r"(?:export|preview|source|boot)-[a-z0-9_]{8}")
"""Folders in a working folder that a process makes for itself (`tempfile`). Only a killed one leaves them."""
LOOK_SECONDS, LOOK_PAUSE = 1.0, 0.01
"""How long a worker waits for the lock: the daemon, a clean-up or another run holds it while it examines folders."""
MAX_LINKS = 40
"""In a path; as many as the kernel follows (path_resolution(7))."""


def ensure_private_dir(path: Path) -> None:
    """Create `path`, which has no link in it, and its parents if missing; a new `path` gets mode 0700.

    Its files are accessed by name, so no one else may be able to replace it. Raises Unsafe (`directory-shared`) unless
    it is this user's, every folder above it this user's or root's, and none writable by others (one above it may be,
    with the sticky bit). Raises MigrationFailed (`directory-unusable`) as well.
    """
    try:
        for folder in reversed(path.parents):
            _make(folder, 0o755)
            require_safe(path, folder, (0, os.geteuid()), sticky=stat.S_ISVTX)
        _make(path, 0o700)
        require_safe(path, path, (os.geteuid(),))
        require_writable(path)
    except OSError as error:
        raise unusable(path, error) from error


def real_conversion_dir(named: Path, allowed: tuple[Path, ...]) -> Path:
    """`named` with its links followed.

    Raises Unsafe (`path-not-allowed`) unless it is written as one of `allowed`; an empty list allows any. A submitter's
    link to one of them could lead elsewhere later. Also raises as `follow_links` does.
    """
    if allowed and named not in allowed:
        raise Unsafe(
            "path-not-allowed",
            f"{named}: the daemon's configuration does not allow this conversion_dir",
            hint="Leave conversion_dir out, or let an administrator add it to allowed_conversion_dirs",
        )
    return follow_links(named)


def follow_links(path: Path) -> Path:
    """`path` with its links followed, as far as it exists.

    Raises Unsafe (`directory-shared`) for a link that others than root and this user own or can replace: they could
    choose the directory in which files are created and removed. Raises MigrationFailed (`directory-unusable`).
    """
    real, left, links = Path("/"), list(reversed(path.parts[1:])), 0
    try:
        while left:
            name = left.pop()
            real = real.parent if name == ".." else real / name
            if real.is_symlink():
                links += 1
                _require_own_link(path, real, links)
                left += reversed(real.readlink().parts)
                real = real.parent
    except OSError as error:
        raise unusable(path, error) from error
    return real


def require_writable(directory: Path) -> None:
    """Raises OSError with the reason."""
    if not os.access(directory, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code))


def way_to_write(directory: Path, error: OSError) -> str:
    """The remedy for a directory that cannot be made or written to."""
    if error.errno == errno.EROFS:
        return (
            f"Mount it for writing. If the service's unit keeps it read-only, add ReadWritePaths={directory} to it "
            "in a drop-in (systemctl edit)"
        )
    return "Create it for the user that runs the migration, or use another directory"


def _make(folder: Path, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode)


def require_safe(path: Path, folder: int | Path, owners: tuple[int, ...], sticky: int = 0) -> None:
    """For the open `folder`, or the one of that name; the last of `owners` may have write permission by their group."""
    facts = os.fstat(folder) if isinstance(folder, int) else folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if facts.st_uid in owners and (facts.st_mode & sticky or not strangers_may_write(folder, Person.of(owners[-1]))):
        return
    name = name_of(folder) if isinstance(folder, int) else folder
    raise Unsafe(
        "directory-shared",
        f"the conversion directory {path} is not protected from others: {name} belongs to "
        f"{Person.of(facts.st_uid).name}, mode {stat.S_IMODE(facts.st_mode):04o}",
        hint=other_directory(Person.of(owners[-1]), name),
    )


def other_directory(owner: Person, refused: Path) -> str:
    """The remedy for a directory with the wrong owner or mode: another one.

    The refused directory may be shared, as /tmp and mount points are, so its rights are not to be changed.
    """
    remedy = f"Use another conversion directory, on a path that only {owner.name} and root can change"
    home = owner.home()
    if home is None or home.is_relative_to(refused):
        return remedy
    return f"{remedy}, such as {home / 'conversions'}"


def _require_own_link(path: Path, link: Path, count: int) -> None:
    if count > MAX_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    owners = (0, os.geteuid())
    for folder in reversed(link.parents):
        require_safe(path, folder, owners, sticky=stat.S_ISVTX)
    maker = Person.of(link.lstat().st_uid)
    if maker.uid not in owners:
        raise Unsafe(
            "directory-shared",
            f"the conversion directory {path} is not protected from others: the link {link} belongs to {maker.name}",
            hint="Remove the link, or use the path of the directory that it leads to",
        )


def unusable(path: Path, error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "directory-unusable",
        f"the directory {path} cannot be used: {error.strerror}",
        hint=way_to_write(path, error),
        kind=Kind.OPERATOR,
    )


def image_name(number: int, extension: str) -> str:
    """The file in a working folder that holds the machine's disk `number`, counted from 0."""
    return f"{IMAGE_PREFIX}{number + 1}.{extension}"


@contextlib.contextmanager
def working_folder(
    conversion_dir: Path, vm_name: str, job_id: str, *, purpose: str = "", keep_on_failure: bool = False
) -> Iterator[Path]:
    """Lock the job's folder during the block, and remove it afterwards.

    With `keep_on_failure`, an exception leaves the folder for the next attempt of the same job, as SIGKILL does. Files
    for another `purpose` are removed first. Raises as `ensure_private_dir` does, and TryLater (`job-already-running`).
    """
    ensure_private_dir(conversion_dir)
    folder = conversion_dir / f"{vm_name}.{job_id}"
    handle = _locked(folder)
    try:
        keep = False
        try:
            _tidy(handle)
            _start_over_for_another(folder, purpose)
            yield folder
        except BaseException:
            keep = keep_on_failure
            raise
        finally:
            if not keep:
                with signals_held():
                    _remove(folder, handle)
    finally:
        os.close(handle)


def _locked(folder: Path) -> int:
    """The open folder, made if missing. A folder that was removed before it was locked is made again."""
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = -1
        try:
            handle = os.open(folder, OPEN_DIRECTORY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), folder.lstat()):
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                os.close(handle)
                raise TryLater(
                    "job-already-running",
                    f"another process is using {folder}",
                    hint="Wait for it to end: two workers must never share a job",
                ) from error
            time.sleep(LOOK_PAUSE)
        if handle >= 0:
            os.close(handle)


def _tidy(handle: int) -> None:
    """Remove what a killed attempt has left in the open, locked folder, besides its images. Raises OSError."""
    quarantine.clear(handle)
    detach_stale(handle)
    for name in filter(SCRATCH.fullmatch, os.listdir(handle)):
        remove_tree(handle, name)


def _remove(folder: Path, handle: int) -> None:
    """Remove the open folder. What cannot be removed stays for `h2kvmctl gc`, which reports it."""
    with contextlib.suppress(OSError):
        detach_stale(handle)
        parent = os.open(folder.parent, OPEN_DIRECTORY)
        try:
            remove_tree(parent, folder.name)
        finally:
            os.close(parent)


def _start_over_for_another(folder: Path, purpose: str) -> None:
    note = folder / PURPOSE
    with contextlib.suppress(FileNotFoundError):
        if note.read_text(encoding="utf-8") == purpose:
            return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    write_durably(note, purpose)
    sync_folder(folder.parent)


def discard_images(folder: Path) -> None:
    """Remove images and their checkpoints from a working folder. Raises OSError."""
    for entry in folder.iterdir():
        if entry.name.startswith(IMAGE_PREFIX):
            entry.unlink()


@contextlib.contextmanager
def as_before(*directories: Path) -> Iterator[None]:
    """Remove the directories that the block made, if they are empty at its end."""
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
