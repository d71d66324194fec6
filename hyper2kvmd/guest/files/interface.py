"""The file system interface of the guest's tree, for every way of access.

Names are relative to the file system, or to its folder that is mounted.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class FreeSpace:
    """Room of a file system for root, or a part of it; no number of inodes where they are made as needed."""

    bytes: int
    inodes: int | None = None


class Files(Protocol):
    """One mounted file system. Methods raise OSError like the system calls of the same name."""

    def lstat(self, path: str) -> os.stat_result: ...

    def exists(self, path: str) -> bool: ...

    def spelling(self, path: str) -> str:
        """`path` as the file system spells it, if case does not distinguish names."""
        ...

    def is_foreign(self, path: str) -> bool:
        """Whether the file's owner prevents its replacement."""
        ...

    def held_by(self, path: str) -> str | None:
        """The attribute (chattr) that forbids a change of the file or folder: `immutable` or `append-only`."""
        ...

    def room(self) -> int | None:
        """Bytes that files may still occupy; None if unknown before a write."""
        ...

    def space(self) -> FreeSpace:
        """What is free now."""
        ...

    def readlink(self, path: str) -> str: ...

    def listdir(self, path: str) -> tuple[str, ...]:
        """Sorted."""
        ...

    def read(self, path: str, limit: int) -> bytes: ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A regular file, with a descriptor of its own."""
        ...

    def replace(self, path: str, data: bytes, *, new_mode: int = 0o644) -> bool:
        """Atomically. False if the file lacks an SELinux label that it should have; `insert` likewise."""
        ...

    def insert(self, path: str, at: int, data: bytes) -> bool:
        """Before the byte `at`, or at the end of the file."""
        ...

    def symlink(self, path: str, target: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def mkdir(self, path: str) -> None: ...

    def sync(self) -> None: ...
