"""What the page of the host shows: file systems with their reserve and promises, tools and versions, protection."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import time
from functools import lru_cache

from hyper2kvmd.daemon.wire import Status
from hyper2kvmd.host.run import SEARCH_PATH
from hyper2kvmd.host.tool_version import tool_version

TOOLS = (
    *("qemu-img", "qemu-storage-daemon", "qemu-system-x86_64", "nbdfuse", "fusermount3", "sudo", "virsh"),
    *("ntfs-3g", "swtpm", "zstd", "lz4"),
)
TOOLS_SECONDS = 60.0


def facts(status: Status) -> tuple[tuple[str, str], ...]:
    confined = "confined by Landlock" if status.confinement_available else "not confined: this kernel has no Landlock"
    return (
        ("Image tools", confined),
        ("hyper2kvmd", status.version),
        ("Python", platform.python_version()),
        ("SQLite", sqlite3.sqlite_version),
        ("Kernel", platform.release()),
    )


def tools() -> tuple[tuple[str, str], ...]:
    """Looked up once a minute."""
    return _tools(int(time.monotonic() / TOOLS_SECONDS))


@lru_cache(maxsize=1)
def _tools(_minute: int) -> tuple[tuple[str, str], ...]:
    return tuple((name, _found(shutil.which(name, path=SEARCH_PATH))) for name in TOOLS)


def _found(path: str | None) -> str:
    return "not found" if path is None else tool_version(path) or "found"
