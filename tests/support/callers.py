"""Calls in a thread that is another user. The kernel keeps user and groups for each thread."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

SETGROUPS, SETRESUID, SETRESGID = (116, 117, 119) if os.uname().machine == "x86_64" else (159, 147, 149)
libc = ctypes.CDLL(None, use_errno=True)


def as_user(uid: int, gid: int, work: Callable[[], T], groups: Sequence[int] = ()) -> T:
    """What `work` returns or raises."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _call(SETGROUPS, len(groups), (ctypes.c_uint32 * len(groups))(*groups))
            _call(SETRESGID, gid, gid, gid)
            _call(SETRESUID, uid, uid, uid)
            results.append(work())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _call(number: int, *arguments: object) -> None:
    if libc.syscall(ctypes.c_long(number), *arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
