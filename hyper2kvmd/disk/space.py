"""Free space, less what is kept back: asked before a byte is written."""

from __future__ import annotations

import os
from pathlib import Path

from hyper2kvmd.errors import MigrationFailed, TryLater


def available(path: Path, reserve: str) -> int:
    """Bytes that a user may still write below `path`, less `reserve` (bytes, or a percentage of the size)."""
    status = os.statvfs(path)
    size = status.f_blocks * status.f_frsize
    kept = int(size * float(reserve[:-1]) / 100) if reserve.endswith("%") else int(float(reserve))
    return max(0, status.f_bavail * status.f_frsize - kept)


def require(path: Path, needed: int, reserve: str) -> None:
    """Raise TryLater (`space-short`), or MigrationFailed (`space-never`) where even an empty disk would not do."""
    status = os.statvfs(path)
    size = status.f_blocks * status.f_frsize
    if needed > size:
        raise MigrationFailed(
            "space-never",
            f"{path} is on a file system of {gib(size)}; the conversion needs {gib(needed)}",
            hint="name a directory on a larger file system",
        )
    free = available(path, reserve)
    if needed > free:
        raise TryLater(
            "space-short",
            f"{path} has {gib(free)} to give (after the reserve of {reserve}); the conversion needs {gib(needed)}",
            hint="free space there, or name a directory on another file system",
        )


def gib(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"
