"""Marks on the files of a job in an output directory: `overwrite` replaces marked files, and no others.

The mark is an extended attribute. It names the machine, the submitter and the state of the file, so a file that
anything has changed since, such as the disk of a machine that has run, is no longer one of ours. Files that are not
finished have a mark of another name.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from hyper2kvmd.model.orders import Order

MARK = "user.hyper2kvm.placed"
DRAFT = "user.hyper2kvm.draft"


def mark(handle: int, order: Order) -> None:
    """Mark an open, finished file. Without extended attributes it stays unmarked, and is never replaced."""
    with suppress(OSError):
        os.setxattr(handle, MARK, _text(os.fstat(handle), order))


def mark_draft(handle: int, order: Order) -> None:
    """Mark an open file that gets its name later. Without extended attributes it stays unmarked."""
    with suppress(OSError):
        os.setxattr(handle, DRAFT, str(order.submitter_uid).encode())


def keep_for_next_attempt(handle: int) -> None:
    """An open draft is complete and noted: it is for the next attempt of its job, not to be removed by others."""
    with suppress(OSError):
        os.removexattr(handle, DRAFT)


def is_draft(handle: int, submitter_uid: int | None) -> bool:
    """Whether an open file was made as a draft, for this submitter or, if None, for anybody."""
    with suppress(OSError):
        made_for = os.getxattr(handle, DRAFT)
        return submitter_uid is None or made_for == str(submitter_uid).encode()
    return False


def submitter_of(handle: int) -> int | None:
    """The submitter for whom an earlier job placed the open file; None if anything has changed it since."""
    with suppress(OSError, ValueError):
        _, uid, *state = os.getxattr(handle, MARK).decode().split(" ")
        return int(uid) if state == _state(os.fstat(handle)) else None
    return None


def is_ours(directory: int, name: str, order: Order) -> bool:
    """Whether an earlier job of this submitter placed the file for this machine, and nothing has changed it since."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(OSError):
        handle = os.open(name, flags, dir_fd=directory)
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
                return False
            return os.getxattr(handle, MARK) == _text(facts, order)
        finally:
            os.close(handle)
    return False


def why_not_ours(directory: int, name: str, order: Order) -> str:
    """The reason of `is_ours` for a file that it denies, as text to follow its name."""
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            written, wanted = os.getxattr(f"/proc/self/fd/{handle}", MARK), _text(os.fstat(handle), order)
        finally:
            os.close(handle)
    except OSError:
        return "has no mark of hyper2kvmd"
    if written.split()[:2] != wanted.split()[:2]:
        return "is of another machine or submitter"
    return "differs from what hyper2kvmd wrote: it was changed or copied since, for example by a machine that has run"


def _text(facts: os.stat_result, order: Order) -> bytes:
    return " ".join((order.migration.vm_name, str(order.submitter_uid), *_state(facts))).encode()


def _state(facts: os.stat_result) -> list[str]:
    return [str(value) for value in (facts.st_ino, facts.st_size, facts.st_mtime_ns)]
