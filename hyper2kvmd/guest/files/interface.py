"""What the guest's tree needs of a file system, whatever gives access to it.

Names are relative to the file system, or to the folder of it that stands for a mount.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol


class Files(Protocol):
    """One mounted file system. Methods raise OSError as the system calls do that they are named for."""

    def lstat(self, path: str) -> os.stat_result: ...

    def exists(self, path: str) -> bool: ...

    def spelling(self, path: str) -> str:
        """`path` as the file system writes it, where case does not tell names apart."""
        ...

    def is_foreign(self, path: str) -> bool:
        """Whether a file's owner keeps us from replacing it."""
        ...

    def room(self) -> int | None:
        """Bytes that files may still take; None where that shows only in the act."""
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
        """Atomically. False when the file ends without an SELinux label that it should have; so does `append`."""
        ...

    def append(self, path: str, data: bytes) -> bool: ...

    def symlink(self, path: str, target: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def mkdir(self, path: str) -> None: ...

    def sync(self) -> None: ...
