"""An NTFS file system of the guest as `Files`, and the way of its changes into the image. It has no modes or owners."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hyper2kvmd.guest.files.interface import FreeSpace
from hyper2kvmd.guest.files.root import is_absent, too_large
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.volumes.ntfs.changes import VolumeChanges
from hyper2kvmd.volumes.ntfs.volume import FILE_LIMIT, NtfsEntry, NtfsVolume, open_volume

READ_ONLY = 0x1
"""FILE_ATTRIBUTE_READONLY"""


class NtfsRoot:
    def __init__(self, volume: NtfsVolume) -> None:
        self._volume = volume

    # ------------------------------------------------------------ looking

    def entry(self, path: str) -> NtfsEntry:
        """What NTFS knows of it besides `lstat`."""
        return self._volume.entry(path)

    def lstat(self, path: str) -> os.stat_result:
        entry = self._volume.entry(path)
        return os.stat_result((_mode(entry), 0, 0, 1, 0, 0, entry.size, 0, 0, 0))

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

    def room(self) -> None:
        """Unknown before a write: nothing reaches the image unless everything fits."""

    def space(self) -> FreeSpace:
        return FreeSpace(self._volume.free_bytes)

    def readlink(self, path: str) -> str:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    def listdir(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(self._volume.names(path)))

    def read(self, path: str, limit: int) -> bytes:
        if self._volume.entry(path).size > limit:
            raise too_large(path, limit)
        return self._volume.read(path, limit)

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """The file as a copy in memory, for callers that need a descriptor."""
        with os.fdopen(os.memfd_create("guest-file", os.MFD_CLOEXEC), "w+b") as copy:
            copy.write(self.read(path, FILE_LIMIT))
            copy.seek(0)
            yield copy

    # ------------------------------------------------------------ changing

    def replace(self, path: str, data: bytes, *, new_mode: int = 0o644, like: str | None = None) -> bool:  # noqa: ARG002 - NTFS has no modes
        """A new file gets the security of the file `like`, else of the folder's first file."""
        self._volume.write(path, data, like=like)
        return True

    def insert(self, path: str, at: int, data: bytes) -> bool:
        before = self.read(path, FILE_LIMIT)
        return self.replace(path, before[:at] + data + before[at:])

    def symlink(self, path: str, target: str) -> None:  # noqa: ARG002 - a reparse point is never made
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)

    def unlink(self, path: str) -> None:
        self._volume.unlink(path)

    def mkdir(self, path: str) -> None:
        self._volume.mkdir(path)

    def sync(self) -> None:
        """`write_changes` does that, for all changes."""


def _mode(entry: NtfsEntry) -> int:
    """A reparse point has no type: it is neither file, folder nor symbolic link, so nothing follows it."""
    if entry.reparse_tag is not None:
        return 0o444
    if entry.is_folder:
        return stat.S_IFDIR | 0o755
    return stat.S_IFREG | (0o444 if entry.attributes & READ_ONLY else 0o644)


@contextmanager
def ntfs_session(access: Access, volume: Volume, *, read_only: bool = False) -> Iterator[NtfsVolume]:
    """The files of an NTFS volume. They can be changed unless `read_only`; the image changes by `write_changes` only.

    Raises as `Access.blocks` and `open_volume` do.
    """
    with (
        access.blocks(volume, read_only=True) as blocks,
        open_volume(blocks, identity_of(volume), read_only=read_only) as opened,
    ):
        yield opened


def write_changes(access: Access, volume: Volume, changed: VolumeChanges) -> None:
    """Bring the changes of a session that has ended into the image. Raises MigrationFailed (`image-write-failed`)."""
    if changed.runs:
        with access.blocks(volume) as blocks:
            changed.write(blocks)


def identity_of(volume: Volume) -> str:
    """The volume's name, serial number and place."""
    places = ", ".join(f"{part.length} bytes at {part.offset} of disk {part.disk + 1}" for part in volume.segments)
    return f"{volume.name} (ntfs, UUID {volume.uuid}; {places})"
