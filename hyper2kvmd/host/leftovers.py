"""Files that killed jobs have left in an output directory under hidden names: drafts, and files that were set aside.

Only files with a mark of ours count, and a draft only if no process holds its lock. Other jobs may work in the
directory at the same time, so it is locked meanwhile, and nothing is done if that is not possible at once.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Failure
from hyper2kvmd.host.destination import output_of
from hyper2kvmd.host.placed import is_draft, submitter_of
from hyper2kvmd.host.removal import OPEN_DIRECTORY
from hyper2kvmd.host.workspace import follow_links
from hyper2kvmd.model.asked import DISKS_MAX
from hyper2kvmd.model.orders import Order

DRAFT_END, ASIDE_END = "partial", "replaced"
HIDDEN = re.compile(r"\.(.+)\.(?:[0-9]+|[0-9]{8}T[0-9]{6}Z-[0-9]+)\.(partial|replaced)", re.DOTALL)
"""`.<name>.<job id>.<end>`."""


@dataclass(frozen=True)
class Whose:
    """The files that count: those of the user `owner`, for any submitter or for one of them."""

    owner: int
    submitter_uid: int | None = None


def tidy(directory: int, whose: Whose, *, dry_run: bool = False) -> tuple[str, ...]:
    """Remove drafts of killed jobs, and give files that they set aside their names back, if these are free.

    `directory` is open. Returns the hidden names that are gone, or would be.
    """
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return ()
    try:
        names = os.listdir(directory)
        return tuple(name for name in names if _tidied_if_possible(directory, name, whose, dry_run=dry_run))
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)


def tidy_directory(path: Path, owner: int, *, dry_run: bool = False) -> tuple[Path, ...]:
    """The same for a directory by its path; a missing or unreadable one has nothing to tidy.

    Links are followed if only root and this user can change them: root must not clean up where others want it to.
    """
    try:
        directory = os.open(follow_links(path), OPEN_DIRECTORY)
    except (OSError, Failure):
        return ()
    try:
        return tuple(path / name for name in tidy(directory, Whose(owner), dry_run=dry_run))
    except OSError:
        return ()
    finally:
        os.close(directory)


def tidy_output_of(order: Order, *, dry_run: bool = False) -> tuple[str, ...]:
    """The same for the output directory of a job that has ended, and drafts with its number, which may lack the mark.

    Opened by the rights of its submitter. Raises OSError, and Unsafe as `output_of` does.
    """
    with output_of(order) as directory:
        own = remove_drafts_of(order, directory, dry_run=dry_run)
        others = tidy(directory, Whose(os.geteuid(), order.submitter_uid), dry_run=dry_run)
    return tuple(dict.fromkeys((*own, *others)))


def remove_drafts_of(order: Order, directory: int, *, dry_run: bool = False) -> tuple[str, ...]:
    """Remove drafts of this job's killed attempts from the open directory; returns their names. Raises OSError."""
    asked = order.migration
    beginnings = tuple(f".{name}." for name in (asked.vm_name, *asked.output_names(DISKS_MAX)))
    ending, gone = f".{order.job_id}.{DRAFT_END}", []
    for name in os.listdir(directory):
        if name.startswith(beginnings) and name.endswith(ending):
            with _opened(directory, name, os.geteuid()) as handle:
                if handle is not None and _removed(directory, name, handle, dry_run=dry_run):
                    gone.append(name)
    return tuple(gone)


def hold(handle: int) -> None:
    """Lock an open draft as long as it is open. Without locks on its file system, it is never taken for abandoned."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _tidied_if_possible(directory: int, name: str, whose: Whose, *, dry_run: bool) -> bool:
    """An error with one file leaves that file, and concerns no other one."""
    with suppress(OSError):
        return _tidied(directory, name, whose, dry_run=dry_run)
    return False


def _tidied(directory: int, name: str, whose: Whose, *, dry_run: bool) -> bool:
    found = HIDDEN.fullmatch(name)
    if found is None:
        return False
    with _opened(directory, name, whose.owner) as handle:
        if handle is None:
            return False
        if found[2] == DRAFT_END:
            return is_draft(handle, whose.submitter_uid) and _removed(directory, name, handle, dry_run=dry_run)
        submitter_uid = submitter_of(handle)
        if submitter_uid is None or whose.submitter_uid not in (None, submitter_uid):
            return False
        return not contains(directory, found[1]) and (dry_run or rename_back(directory, name, found[1]))


@contextmanager
def _opened(directory: int, name: str, owner: int) -> Iterator[int | None]:
    """A regular file of the owner; None for anything else."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        yield None
        return
    try:
        facts = os.fstat(handle)
        yield handle if stat.S_ISREG(facts.st_mode) and facts.st_uid == owner else None
    finally:
        os.close(handle)


def _removed(directory: int, name: str, handle: int, *, dry_run: bool) -> bool:
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(name, dir_fd=directory, follow_symlinks=False)):
            if not dry_run:
                os.unlink(name, dir_fd=directory)
            return True
    return False


def contains(directory: int, name: str) -> bool:
    """Whether the open directory has an entry of that name. Raises OSError."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def rename_back(directory: int, aside: str, name: str) -> bool:
    """Rename, unless `aside` does not exist or `name` does; whether it was renamed. Raises OSError."""
    with suppress(FileNotFoundError, FileExistsError):
        os.link(aside, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(aside, dir_fd=directory)
        return True
    return False
