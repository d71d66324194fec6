"""The rules for opening sources: for which person, below which folders, and named by which files.

They are checked on the open file, by its name in the kernel: a name that was checked earlier could lead elsewhere by
then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from hyper2kvmd.errors import Unsafe
from hyper2kvmd.host.person import READ, SEARCH, Person, lineage, name_of
from hyper2kvmd.host.way import way_to
from hyper2kvmd.model.orders import Order


@dataclass(frozen=True)
class Namer:
    """A file that names other files, and its owner."""

    path: Path
    owner: Person


@dataclass(frozen=True)
class Mandate:
    """`person` is None for the user of this process, whom the kernel judges. No `folders`: anywhere."""

    person: Person | None = None
    folders: tuple[Path, ...] = ()
    namers: tuple[Namer, ...] = ()
    """The chain of files that name the opened one, in order. Empty: the migration itself names it."""

    @staticmethod
    def of(order: Order) -> Mandate:
        return Mandate(Person.who_submitted(order), order.bounds.source_dirs)

    def named_by(self, handle: int, path: Path) -> Mandate:
        """The mandate for files that the open file `path` names.

        Anyone who writes such a file, or puts it next to a hard link, chooses what this program opens with its rights.
        So the named files must also belong to its owner or be readable by its owner.
        """
        return self.named_by_owner(path, os.fstat(handle).st_uid)

    def named_by_owner(self, path: Path, uid: int) -> Mandate:
        """The same for the file `path`, which belonged to `uid` when it was read."""
        return replace(self, namers=(*self.namers, Namer(path, Person.of(uid))))

    def names_in(self, folder: Path, limit: int) -> tuple[str, ...]:
        """The first `limit` names in a folder that the person may list; none in any other. Raises OSError."""
        with way_to(folder, self.person) as way:
            if way.rest or way.closed or not (self.person is None or self.person.may(READ, way.folder)):
                return ()
            handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=way.folder)
            try:
                with os.scandir(handle) as entries:
                    return tuple(entry.name for entry in islice(entries, limit))
            finally:
                os.close(handle)

    def open(self, path: Path, flags: int) -> int:
        """Open a file that is no link, through directories that the person may search. It is not judged itself.

        Raises OSError, and Unsafe: `path-not-allowed`, and `submitter-may-not-read` for a directory that is closed to
        them, whether or not the file exists.
        """
        flags |= os.O_NOFOLLOW
        if self.person is None and not self.folders:
            return os.open(path, flags)
        with way_to(path.parent, self.person) as way:
            require_below(path, way.real / path.name, self.folders, "source")
            if way.closed and self.person is not None:
                raise _not_theirs(path, name_of(way.folder), self.person)
            if way.rest:
                raise OSError(way.reason, os.strerror(way.reason), str(path))
            return os.open(path.name, flags, dir_fd=way.folder)

    def require(self, handle: int, path: Path) -> None:
        """Raise Unsafe unless the open file may be used as `path`.

        Codes: `path-not-allowed`, `named-file-not-readable`, `submitter-may-not-read`.
        """
        opened = name_of(handle)
        require_below(path, opened, self.folders, "source")
        for namer in self.namers:
            _require_reach(namer, handle, path)
        if self.person is None:
            return
        if not self.person.may(READ, handle):
            raise _not_theirs(path, path, self.person)
        parent = os.open(opened.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            there, here = os.stat(opened.name, dir_fd=parent, follow_symlinks=False), os.fstat(handle)
            if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                raise _not_theirs(path, opened.parent, self.person)
            for folder in lineage(parent):
                if not self.person.may(SEARCH, folder):
                    raise _not_theirs(path, name_of(folder), self.person)
        except FileNotFoundError as error:
            raise _not_theirs(path, opened.parent, self.person) from error
        finally:
            os.close(parent)


ANYONE = Mandate()


def require_below(path: Path, real: Path, allowed: tuple[Path, ...], what: str) -> None:
    """Raise Unsafe (`path-not-allowed`) if `path`, with the real path `real`, is below none of `allowed`."""
    if allowed and not any(real.is_relative_to(os.path.realpath(directory)) for directory in allowed):
        raise Unsafe(
            "path-not-allowed",
            f"the {what} {path} is outside the directories that this daemon may use",
            hint=f"Move it below {', '.join(map(str, allowed))}, or extend allowed_{what}_dirs",
        )


def _require_reach(namer: Namer, handle: int, path: Path) -> None:
    """Raise Unsafe (`named-file-not-readable`) unless the namer's owner owns or can read the open file."""
    owner, uid = namer.owner, os.fstat(handle).st_uid
    if uid == owner.uid or owner.may(READ, handle):
        return
    raise Unsafe(
        "named-file-not-readable",
        f"{path}: belongs to {Person.of(uid).name}, and {owner.name}, the owner of {namer.path}, cannot read it",
        hint="Copy the whole export to another directory, so that all its files have one owner",
    )


def _not_theirs(path: Path, obstacle: Path, person: Person) -> Unsafe:
    return Unsafe(
        "submitter-may-not-read",
        f"{person.name or 'an unknown user'} (who submitted this job) cannot read {path}: "
        f"permission denied at {obstacle}",
        hint="Have it copied to a directory that they can read, or have the job submitted by a user who can read it",
    )
