"""Marks on the files of a job in an output directory: `overwrite` replaces marked files, and no others.

The mark is an extended attribute. It names the machine, the submitter and the state of the file, so a file that
anything has changed since, such as the disk of a machine that has run, is no longer one of ours.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from hyper2kvmd.model.orders import Order

MARK = "user.hyper2kvm.placed"


def mark(handle: int, order: Order) -> None:
    """Mark an open, finished file. Without extended attributes it stays unmarked, and is never replaced."""
    with suppress(OSError):
        os.setxattr(handle, MARK, _text(os.fstat(handle), order))


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


def _text(facts: os.stat_result, order: Order) -> bytes:
    state = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return " ".join(map(str, (order.migration.vm_name, order.submitter_uid, *state))).encode()
