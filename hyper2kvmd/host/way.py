"""The way to a file or directory, walked one directory after the other, each judged before anything is looked up in it.

So what lies in a directory that is closed to somebody is not even said to exist to them. What is found is opened from
the directory that was walked to: nobody can exchange the way meanwhile. Source: path_resolution(7).
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
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Way:
    """Where a walk ended."""

    folder: int
    """The last directory, open (O_PATH) as long as the walk is."""
    rest: tuple[str, ...]
    """Names that were not looked up below it: those of missing directories, and of what lies in a closed one."""
    closed: bool
    """Whether `folder` may not be searched by the person."""
    reason: int
    """errno of why the first of `rest` was not opened: ENOENT, or EACCES if this process may not search `folder`."""

    @property
    def real(self) -> Path:
        """The path without links, as far as it was walked."""
        return Path(os.path.normpath(name_of(self.folder).joinpath(*self.rest)))


@contextmanager
def way_to(directory: Path, person: Person | None) -> Iterator[Way]:
    """Walk to a directory, links followed; `person` is None for whoever runs this program.

    Raises OSError: ELOOP for too many links, ENOTDIR for what is no directory.
    """
    handle = os.open("/" if directory.is_absolute() else ".", LOOK)
    names, links, reason = _names(str(directory)), 0, errno.ENOENT
    try:
        while names:
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
