"""A FAT file system of the guest as `Files`. It has no links, owners or modes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.interface import FreeSpace
from hyper2kvmd.guest.files.root import is_absent, too_large
from hyper2kvmd.volumes.fat import FatVolume

MODES = {True: stat.S_IFDIR | 0o755, False: stat.S_IFREG | 0o644}
OPEN_LIMIT = 1 << 30
"""Bytes of the largest file that is opened: an initrd is a tenth of that."""


class FatRoot:
    def __init__(self, volume: FatVolume) -> None:
        self._volume = volume

    # ------------------------------------------------------------ looking

    def lstat(self, path: str) -> os.stat_result:
        entry = self._volume.entry(path)
        return os.stat_result((MODES[entry.is_folder], 0, 0, 1, 0, 0, entry.size, 0, 0, 0))

    def exists(self, path: str) -> bool:
        try:
            self._volume.entry(path)
        except OSError as error:
            if is_absent(error):
                return False
            raise
        return True

    def spelling(self, path: str) -> str:
        return self._volume.spelling(path)

    def is_foreign(self, _: str) -> bool:
        return False

    def held_by(self, _: str) -> None:
        """It has no such attributes."""

    def room(self) -> int:
        return self._volume.free_bytes

    def space(self) -> FreeSpace:
        return FreeSpace(self._volume.free_bytes)

    def readlink(self, path: str) -> str:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    def listdir(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(self._volume.names(path)))

    def read(self, path: str, limit: int) -> bytes:
        if self._volume.entry(path).size > limit:
            raise too_large(path, limit)
        return b"".join(self._volume.pieces(path))

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """The file as a copy in memory, for callers that need a descriptor."""
        if self._volume.entry(path).size > OPEN_LIMIT:
            raise too_large(path, OPEN_LIMIT)
        with os.fdopen(os.memfd_create("guest-file", os.MFD_CLOEXEC), "w+b") as copy:
            for piece in self._volume.pieces(path):
                copy.write(piece)
            copy.seek(0)
            yield copy

    # ------------------------------------------------------------ changing

    def replace(self, path: str, data: bytes, *, new_mode: int = 0o644) -> bool:  # noqa: ARG002 - FAT has no modes
        self._volume.replace(path, data)
        return True

    def insert(self, path: str, at: int, data: bytes) -> bool:
        size = self.lstat(path).st_size
        if at == size:
            self._volume.append(path, data)
            return True
        before = self.read(path, size)
        return self.replace(path, before[:at] + data + before[at:])

    def symlink(self, path: str, target: str) -> None:
        raise MigrationFailed(
            "fat-symlink",
            f"a symbolic link from {path} to {target} is not possible on a FAT file system",
            hint="Report this bug with the layout of the guest's disk",
        )

    def unlink(self, path: str) -> None:
        self._volume.unlink(path)

    def mkdir(self, path: str) -> None:
        self._volume.mkdir(path)

    def sync(self) -> None:
        self._volume.sync()
