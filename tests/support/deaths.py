"""The helper, killed before any of its lines."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.support.host import HELPER

TRACED = """
import os, runpy, signal, sys
path, victim, log = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def trace(frame, event, _):
    if frame.f_code.co_filename != path:
        return None
    if event == "line":
        os.write(log, b"%d\\n" % frame.f_lineno)
        if frame.f_lineno == victim:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.argv = [path]
sys.settrace(trace)
runpy.run_path(path, run_name="__main__")
"""
"""The helper under a debugger that kills it, or a child of it, before one of its lines."""


@contextmanager
def as_user(user: pwd.struct_passwd) -> Iterator[None]:
    """A socket made in here is, to the kernel, the user's own."""
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def killed_at(line: int, request: dict[str, Any], fds: list[int], user: pwd.struct_passwd, log: int) -> int:
    """Ask with the helper killed before that line (0: never); how many mounts came. `log` gets its lines, in text."""
    with as_user(user):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = ["/usr/bin/python3", "-IS", "-c", TRACED, str(HELPER), str(line), str(log)]
    received = list[int]()
    with (
        ours,
        theirs,
        subprocess.Popen(argv, stdin=theirs.fileno(), stderr=subprocess.DEVNULL, pass_fds=[log]) as process,
    ):
        theirs.close()
        ours.settimeout(60)
        with suppress(OSError):
            socket.send_fds(ours, [json.dumps(request).encode()], fds)
            _, received, _, _ = socket.recv_fds(ours, 65536, 4)
        process.wait(60)
    for handle in received:
        os.close(handle)
    return len(received)


def lines_in(log: int) -> list[int]:
    return sorted({int(line) for line in os.pread(log, 1 << 24, 0).split()})
