"""The files of a folder with drivers, opened by the rights of the person who named it. No link in it is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hyper2kvmd.guest.windows.drivers.faults import unreadable
from hyper2kvmd.host.mandate import Mandate

USED = (".inf", ".sys", ".cat", ".dll", ".exe", ".msi")
"""Suffixes of the files that are listed; other names are looked at as folders."""
MOST_NAMES, DEEPEST = 20_000, 8
OTHERS = (".pdb", ".txt", ".doc", ".pdf", ".iso", ".vfd", ".xml", ".htm", ".html", ".rtf", ".ini", ".bat", ".cmd")
"""Suffixes of files that are never opened."""


def is_folder(path: Path, mandate: Mandate) -> bool:
    """A path that cannot be opened is none: `open_file` reports the reason."""
    try:
        handle = mandate.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def read_names(folder: Path, mandate: Mandate) -> tuple[str, ...]:
    """The files below a folder by their paths in it, sorted.

    Raises MigrationFailed (`virtio-win-unreadable`), and Unsafe as `mandate.open` does.
    """
    return tuple(sorted(_Walk(folder, mandate).files()))


class _Walk:
    def __init__(self, folder: Path, mandate: Mandate) -> None:
        self._folder, self._mandate = folder, mandate
        self._count = 0

    def files(self) -> Iterator[str]:
        pending = [(PurePosixPath(), 0)]
        while pending:
            place, depth = pending.pop()
            for name in self._names(place):
                path = place / name
                suffix = path.suffix.lower()
                if suffix in USED:
                    yield str(path)
                elif suffix not in OTHERS and depth < DEEPEST and is_folder(self._folder / path, self._mandate):
                    pending.append((path, depth + 1))

    def _names(self, place: PurePosixPath) -> tuple[str, ...]:
        path = self._folder / place
        try:
            names = self._mandate.names_in(path, MOST_NAMES + 1 - self._count)
        except OSError as error:
            raise unreadable(path, f"this folder cannot be read: {os.strerror(error.errno or errno.EIO)}") from error
        self._count += len(names)
        if self._count > MOST_NAMES:
            raise unreadable(self._folder, f"this folder has more than {MOST_NAMES} files")
        return tuple(name for name in names if name.isprintable())
