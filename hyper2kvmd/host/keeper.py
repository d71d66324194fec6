"""Runs a program of the administrator, and ends everything that the program has started.

It runs alone (`python -IS keeper.py PARENT PROGRAM ARG...`, standard library only). Processes that the program leaves
are killed when the program ends, when this process gets SIGTERM, and when its starter dies. They become children of
this process, also those that have a session of their own.

Sources: prctl(2), PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG; proc(5), /proc/pid/stat.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
END_SECONDS = 5.0
"""For processes that cannot be killed: those of a setuid program."""
NOT_STARTED = 126
"""The exit status of a shell for a program that it cannot execute."""
AWAITED = {signal.SIGTERM, signal.SIGCHLD}

libc = ctypes.CDLL(None)


def start(program: list[str]) -> int:
    """Start the program, which dies with this process; returns its pid."""
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == keeper:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
            os.execv(program[0], program)  # noqa: S606 - the purpose of this file
    except OSError as error:
        os.write(2, f"{program[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
    os._exit(NOT_STARTED)


def reaped() -> Iterator[tuple[int, int]]:
    """Pids and wait statuses of children that have ended. Raises ChildProcessError if no child is left."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        yield pid, status


def children() -> Iterator[int]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - the same
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(name)
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - starts without pathlib's cost
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    yield pid


def end_all() -> None:
    """Kill the children until none is left: those of killed children become children of this process."""
    limit = time.monotonic() + END_SECONDS
    while time.monotonic() < limit:
        for pid in children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            for _ in reaped():
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def end_like(status: int) -> NoReturn:
    """End as the program did, without a core dump of this process."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if code not in (-signal.SIGKILL, -signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    sys.exit(code)


def main(arguments: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(arguments[0]):
        raise SystemExit("the starter is gone")
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    program = start(arguments[1:])
    while True:
        if signal.sigwait(AWAITED) == signal.SIGTERM:
            end_all()
            end_like(signal.SIGTERM)
        for pid, status in reaped():
            if pid == program:
                end_all()
                end_like(status)


if __name__ == "__main__":
    main(sys.argv[1:])
