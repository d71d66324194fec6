"""Folders for temporary files outside working folders, and the removal of those whose process was killed.

A process locks its folder, so that the lock shows whether it is still there.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hyper2kvmd.host.removal import OPEN_DIRECTORY, remove_tree

PREFIX = "h2k-scratch-"
NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")
"""As `tempfile` makes them."""
UNLOCKED_SECONDS = 60.0
"""A folder younger than this may not be locked yet."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this user, removed at the end. Folders of killed processes are removed first."""
    remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        handle = os.open(name, OPEN_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(handle)


def remove_abandoned() -> tuple[str, ...]:
    """Remove the folders of this user's killed processes; returns their names."""
    with suppress(OSError):
        parent = os.open(tempfile.gettempdir(), OPEN_DIRECTORY)
        try:
            names = filter(NAME.fullmatch, os.listdir(parent))  # noqa: PTH208 - of the descriptor
            return tuple(name for name in names if _removed(parent, name))
        finally:
            os.close(parent)
    return ()


def _removed(parent: int, name: str) -> bool:
    with suppress(OSError):
        handle = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
        try:
            facts = os.fstat(handle)
            if facts.st_uid == os.geteuid() and time.time() - facts.st_ctime > UNLOCKED_SECONDS:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(parent, name)
                return True
        finally:
            os.close(handle)
    return False
