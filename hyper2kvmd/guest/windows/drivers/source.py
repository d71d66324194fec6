"""Where drivers come from: an ISO of virtio-win, or a folder with its files."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from hyper2kvmd import units
from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.drivers import iso
from hyper2kvmd.guest.windows.drivers.faults import shown, unreadable
from hyper2kvmd.guest.windows.drivers.folder import is_folder, read_names
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.host.way import MAX_LINKS, way_to

LARGEST_FILE = 64 << 20
"""Bytes: the installer of the guest agent has about 15 MiB."""


class _Files(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...

    def read(self, name: str, limit: int) -> bytes: ...

    def close(self) -> None: ...


class DriverSource:
    """The files of an ISO or of a folder, by their paths in it.

    Names are found in any case, as Windows finds them. Close it after use; it is a context manager.
    """

    def __init__(self, path: Path, files: _Files) -> None:
        self.path = path
        self._files = files
        self._names: dict[str, str] = {}
        for name in files.names:
            self._names.setdefault(name.lower(), name)

    @classmethod
    def open(cls, path: Path, mandate: Mandate = ANYONE) -> DriverSource:
        """Open an ISO or a folder by the rights of the mandate.

        Raises MigrationFailed (`virtio-win-unreadable`), and as `open_file` does.
        """
        real = real_path(path, mandate)
        if is_folder(real, mandate):
            return cls(path, _FolderFiles(real, mandate))
        return cls(path, _IsoFiles(_opened(path, real, mandate)))

    def __enter__(self) -> DriverSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._files.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted, in the spelling of the source."""
        return tuple(sorted(self._names.values()))

    def find(self, name: str) -> str | None:
        """The spelling of the source for a path in any case."""
        return self._names.get(name.lower())

    def read(self, name: str, limit: int = LARGEST_FILE) -> bytes:
        """The whole file. Raises MigrationFailed (`virtio-win-unreadable`), and as `open_file` does."""
        return self._files.read(name, limit)


def _opened(path: Path, real: Path, mandate: Mandate) -> SourceFile:
    try:
        return open_file(real, mandate)
    except MigrationFailed as error:
        if error.code == "source-missing":
            raise unreadable(path, "this file does not exist", hint="Correct the path in virtio_win") from error
        raise


def real_path(path: Path, mandate: Mandate) -> Path:
    """The path behind symbolic links at its end, such as `/usr/share/virtio-win/virtio-win.iso` is one.

    Every directory on the way is judged; the file behind it is judged when it is opened. Raises Unsafe
    (`submitter-may-not-read`) as `mandate.open` does.
    """
    for _ in range(MAX_LINKS):
        try:
            handle = mandate.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return path  # whoever opens it reports the reason
        try:
            if not stat.S_ISLNK(os.fstat(handle).st_mode):
                return path
            target = Path(os.readlink("", dir_fd=handle))
        finally:
            os.close(handle)
        with way_to(path.parent, mandate.person) as way:
            path = way.real / target
    return path


class _IsoFiles:
    def __init__(self, file: SourceFile) -> None:
        self._file = file
        try:
            if not iso.is_iso(file):
                raise unreadable(file.path, "this file is not an ISO 9660 image")
            stated = iso.stated_bytes(file)
            if file.size < stated:
                has = f"{units.size(file.size)} of {units.size(stated)}"
                raise unreadable(file.path, f"the image is truncated: it has {has}", hint="Download or copy it again")
            self._extents: Mapping[str, iso.IsoExtent] = iso.read_files(file)
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._extents)

    def read(self, name: str, limit: int) -> bytes:
        extent = self._extents[name]
        _require_size(self._file.path, name, extent.length, limit)
        data = self._file.read(extent.offset, extent.length)
        if len(data) < extent.length:
            raise unreadable(self._file.path, f"the image is incomplete: {shown(name)} is cut off")
        return data

    def close(self) -> None:
        os.close(self._file.fd)


class _FolderFiles:
    def __init__(self, folder: Path, mandate: Mandate) -> None:
        self._folder, self._mandate = folder, mandate
        self._all = read_names(folder, mandate)

    @property
    def names(self) -> tuple[str, ...]:
        return self._all

    def read(self, name: str, limit: int) -> bytes:
        file = open_file(self._folder / name, self._mandate)
        try:
            _require_size(self._folder, name, file.size, limit)
            return file.read_whole(0, file.size)
        finally:
            os.close(file.fd)

    def close(self) -> None:
        """Its files are opened one at a time."""


def _require_size(place: Path, name: str, size: int, limit: int) -> None:
    if size > limit:
        raise unreadable(place, f"{shown(name)} in it has {units.size(size)}, more than {units.size(limit)}")
