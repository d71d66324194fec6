"""Following a path one directory at a time; each is judged before a name is looked up in it.

So the names in a directory that is closed to a person are not revealed to them. Each name is opened from the open
directory above it, so the path cannot be exchanged meanwhile. Source: path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.host.person import SEARCH, Person, name_of

MAX_LINKS = 40
"""As many as the kernel follows."""
MAX_STEPS = 512
"""Directories and links on the way, those of links included: each costs a look at its permissions."""
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Way:
    """Where a walk ended."""

    folder: int
    """The last directory, open (O_PATH) during the block."""
    rest: tuple[str, ...]
    """Names below it that were not opened: missing directories, and everything in a closed one."""
    closed: bool
    """Whether the person may not search `folder`."""
    reason: int
    """Why the first of `rest` was not opened: ENOENT, or EACCES if this process may not search `folder`."""

    @property
    def real(self) -> Path:
        """The path without links, as far as it was followed."""
        return Path(os.path.normpath(name_of(self.folder).joinpath(*self.rest)))


@contextmanager
def way_to(directory: Path, person: Person | None) -> Iterator[Way]:
    """Follow a path with its links; `person` is None for the user of this process.

    Raises OSError: ELOOP for too many links, ENAMETOOLONG for too many directories, ENOTDIR for a part that is no
    directory.
    """
    handle = os.open("/" if directory.is_absolute() else ".", LOOK)
    names, links, steps, reason = _names(str(directory)), 0, 0, errno.ENOENT
    try:
        while names:
            steps += 1
            if steps > MAX_STEPS:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(directory))
            if person is not None and not person.may(SEARCH, handle):
                break
            try:
                found = os.open(names[0], LOOK, dir_fd=handle)
            except FileNotFoundError:
                break
            except PermissionError:
                reason = errno.EACCES
                break
            target, kind = "", os.fstat(found).st_mode
            if stat.S_ISLNK(kind):
                target, links = os.readlink("", dir_fd=found), links + 1
                os.close(found)
                found = os.open("/" if target.startswith("/") else ".", LOOK, dir_fd=handle)
            os.close(handle)
            handle, names = found, [*_names(target), *names[1:]]
            if links > MAX_LINKS or not (stat.S_ISLNK(kind) or stat.S_ISDIR(kind)):
                number = errno.ELOOP if links > MAX_LINKS else errno.ENOTDIR
                raise OSError(number, os.strerror(number), str(directory))
        closed = person is not None and not person.may(SEARCH, handle)
        yield Way(handle, tuple(names), closed, reason)
    finally:
        os.close(handle)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]
