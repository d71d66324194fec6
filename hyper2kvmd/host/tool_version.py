"""The version of a program that is installed on this host."""

from __future__ import annotations

import re
import stat
from functools import lru_cache
from pathlib import Path

from hyper2kvmd.errors import Failure
from hyper2kvmd.host import run

STALL_SECONDS = 5.0
VERSION = re.compile(r"\d+(\.\d+)+\S*")


def tool_version(path: str) -> str | None:
    """As the program says it; None if it says none. Asked again when the file has changed.

    A setuid program is not asked: without new privileges, AppArmor denies its start, and logs that as an attempt.
    """
    try:
        found = Path(path).stat()
        return None if found.st_mode & stat.S_ISUID else _version(path, found.st_mtime_ns)
    except (OSError, Failure):
        return None


@lru_cache(maxsize=64)
def _version(path: str, _mtime_ns: int) -> str | None:
    done = run.run([path, "--version"], stall_seconds=STALL_SECONDS, check=False)
    found = VERSION.search(done.stdout) or VERSION.search(done.stderr)
    return found[0].rstrip("),") if found else None
