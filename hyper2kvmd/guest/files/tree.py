"""The guest's files as the guest sees them, with edits that are staged first and written only by `commit`.

Combines mounted file systems by mount point, and follows symbolic links across them (an absolute link on any file
system starts at the guest's root). A fix reads the edits that earlier fixes staged, so a dry run shows exactly the
diff of a real one.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import posixpath
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import BinaryIO

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files import write_errors
from hyper2kvmd.guest.files.interface import Files, FreeSpace
from hyper2kvmd.guest.files.root import is_absent
from hyper2kvmd.model.guest import Change

TEXT_LIMIT = 4 << 20
MAX_TEXTS = 512
"""Files that match patterns; further ones are not read."""
BINARY_LIMIT = 64 << 20
MAX_LINKS = 40
MAX_DIFF = 64 << 10
"""Characters of a diff that the report contains."""
SPARE_BYTES = 1 << 20
"""Left free after an insertion, for the file system's own metadata."""
FILE_OVERHEAD = 64 << 10
"""Bytes that a file may occupy besides its content: the rest of its last cluster, a longer folder."""


@dataclass(frozen=True)
class _Content:
    data: bytes
    mode: int


@dataclass(frozen=True)
class _Inserted:
    at: int
    data: bytes


@dataclass(frozen=True)
class _Link:
    target: str


@dataclass(frozen=True)
class _Removed:
    pass


_Edit = _Content | _Inserted | _Link | _Removed


@dataclass(frozen=True)
class Mark:
    """Staged edits, to be staged again later or in another tree of the same files."""

    edits: Mapping[str, _Edit]
    changes: tuple[Change, ...]

    def where(self, wanted: Callable[[str], bool]) -> Mark:
        """Those of paths that are wanted."""
        return Mark({path: edit for path, edit in self.edits.items() if wanted(path)}, self.changes)


class GuestTree:
    """Paths are absolute, as in the guest. `mounts` must have a mount point for every path that is used: "/", except
    in a tree that only commits.
    """

    def __init__(self, mounts: Mapping[str, Files]) -> None:
        self._mounts = {posixpath.normpath(point): root for point, root in mounts.items()}
        self._edits: dict[str, _Edit] = {}
        self._changes: list[Change] = []
        self.unlabelled: tuple[str, ...] = ()
        """Files that `commit` had to leave without the SELinux label that they need."""

    # ------------------------------------------------------------ names

    def canonical(self, path: str) -> str:
        """`path` without symbolic links; its last parts need not exist. Raises OSError ELOOP."""
        done: list[str] = []
        pending = deque(path.split("/"))
        links = 0
        while pending:
            part = pending.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            target = self._link_at("/" + "/".join([*done, part]))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                done.clear()
            pending.extendleft(reversed(target.split("/")))
        root, inside = self._locate("/" + "/".join(done))
        return "/" + "/".join(done).removesuffix(inside) + root.spelling(inside)

    def _link_at(self, place: str) -> str | None:
        if place in self._mounts:
            return None
        edit = self._edits.get(place)
        if edit is not None:
            return edit.target if isinstance(edit, _Link) else None
        root, inside = self._locate(place)
        try:
            return root.readlink(inside) if stat.S_ISLNK(root.lstat(inside).st_mode) else None
        except OSError as error:
            if is_absent(error):
                return None
            raise

    def _locate(self, place: str) -> tuple[Files, str]:
        point = self._mount_point(place)
        return self._mounts[point], place.removeprefix(point).lstrip("/")

    def _mount_point(self, place: str) -> str:
        point = place
        while point not in self._mounts:
            point = posixpath.dirname(point)
        return point

    # ------------------------------------------------------------ reading

    def _mode(self, path: str) -> int:
        """File type and permissions; 0 when there is nothing."""
        try:
            place = self.canonical(path)
        except OSError as error:
            if is_absent(error):
                return 0
            raise
        edit = self._edits.get(place)
        if isinstance(edit, _Removed):
            return 0
        if isinstance(edit, _Content):
            return stat.S_IFREG | edit.mode
        root, inside = self._locate(place)
        try:
            return root.lstat(inside).st_mode
        except OSError as error:
            if is_absent(error):
                return stat.S_IFDIR if self._staged_names(place) else 0
            raise

    def exists(self, path: str) -> bool:
        return self._mode(path) != 0

    def is_dir(self, path: str) -> bool:
        return stat.S_ISDIR(self._mode(path))

    def is_file(self, path: str) -> bool:
        return stat.S_ISREG(self._mode(path))

    def size(self, path: str) -> int:
        """Bytes of a file on the disk, without staged edits."""
        root, inside = self._locate(self.canonical(path))
        return root.lstat(inside).st_size

    def link_target(self, path: str) -> str | None:
        """The target of a symbolic link, as written in it; None for anything else."""
        folder, name = posixpath.split(path)
        return self._link_at(posixpath.join(self.canonical(folder), name))

    def listdir(self, path: str) -> tuple[str, ...]:
        """Names in a folder, sorted; none when there is no such folder."""
        if not self.is_dir(path):
            return ()
        place = self.canonical(path)
        root, inside = self._locate(place)
        try:
            names = set(root.listdir(inside))
        except OSError as error:
            if not is_absent(error):
                raise
            names = set()
        prefix = place.rstrip("/") + "/"
        for edited, edit in self._edits.items():
            if posixpath.dirname(edited) == place and isinstance(edit, _Removed):
                names.discard(edited.removeprefix(prefix))
        return tuple(sorted(names | self._staged_names(place)))

    def _staged_names(self, place: str) -> set[str]:
        prefix = place.rstrip("/") + "/"
        return {
            edited.removeprefix(prefix).split("/")[0]
            for edited, edit in self._edits.items()
            if edited.startswith(prefix) and not isinstance(edit, _Removed)
        }

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Paths that match, with `*` and `?` in any part."""
        found = ["/"]
        for part in pattern.strip("/").split("/"):
            if "*" in part or "?" in part:
                found = [
                    posixpath.join(folder, name)
                    for folder in found
                    for name in self.listdir(folder)
                    if fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
                ]
            else:
                found = [posixpath.join(folder, part) for folder in found]
        return tuple(path for path in found if self.exists(path))

    def read_bytes(self, path: str, limit: int = BINARY_LIMIT) -> bytes:
        place = self.canonical(path)
        edit = self._edits.get(place)
        if isinstance(edit, _Content):
            return edit.data
        if isinstance(edit, _Removed):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        root, inside = self._locate(place)
        data = root.read(inside, limit)
        return data[: edit.at] + edit.data + data[edit.at :] if isinstance(edit, _Inserted) else data

    def read_text(self, path: str) -> str:
        """The text of a file without loss: bytes that are not UTF-8 become surrogates."""
        return self.read_bytes(path, TEXT_LIMIT).decode(errors="surrogateescape")

    def text_or_empty(self, path: str) -> str:
        return self.read_text(path) if self.is_file(path) else ""

    def texts(self, *patterns: str) -> Iterator[str]:
        """The texts of regular files that match, one after the other, and of no more than `MAX_TEXTS` files."""
        for path in islice((path for pattern in patterns for path in self.glob(pattern)), MAX_TEXTS):
            if self.is_file(path):
                yield self.read_text(path)

    def has_content(self, path: str, data: bytes) -> bool:
        """Whether there is a file with exactly these bytes, with staged edits."""
        try:
            return self.is_file(path) and self.read_bytes(path, len(data) + 1) == data
        except MigrationFailed as failure:
            if failure.code == "guest-file-too-large":
                return False
            raise

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A large file as on the disk, without staged edits."""
        root, inside = self._locate(self.canonical(path))
        with root.open(inside) as stream:
            yield stream

    # ------------------------------------------------------------ staging

    def write_text(self, path: str, text: str, *, fix: str, summary: str, mode: int = 0o644) -> None:
        """Stage new content unless it is the old one. `mode` is for a file that does not exist yet.

        Raises MigrationFailed (`guest-file-owner`, `guest-full`), as every staging method does.
        """
        place = self.canonical(path)
        before = self.read_text(place) if self.exists(place) else ""
        if before == text and self.exists(place):
            return
        self._stage(
            place, _Content(text.encode(errors="surrogateescape"), mode), fix, summary, _diff(place, before, text)
        )

    def write_bytes(self, path: str, data: bytes, *, fix: str, summary: str) -> None:
        """Stage new content of a binary file."""
        place, digest = self.canonical(path), hashlib.sha256(data).hexdigest()
        self._stage(place, _Content(data, 0o644), fix, summary, f"{len(data)} bytes: {summary}")
        self._changes[-1] = self._changes[-1].with_changes(size=len(data), sha256=digest)

    def remove(self, path: str, *, fix: str, summary: str) -> None:
        """Stage the removal of a file, or of a symbolic link itself."""
        place = self._unresolved(path)
        if not self.exists(place) and self._link_at(place) is None:
            return
        target = self._link_at(place)
        if target is None and self.is_file(place) and self.size(place) <= TEXT_LIMIT:
            diff = _diff(place, self.read_text(place), "", after_name="/dev/null")
        else:
            diff = f"removed the symbolic link to {target}" if target is not None else "removed"
        self._stage(place, _Removed(), fix, summary, diff)

    def symlink(self, path: str, target: str, *, fix: str, summary: str) -> None:
        """Stage a symbolic link, which replaces an existing link or file."""
        place = self._unresolved(path)
        if self._link_at(place) == target:
            return
        self._stage(place, _Link(target), fix, summary, f"symbolic link to {target}")

    def insert(self, path: str, at: int, data: bytes, *, fix: str, summary: str) -> None:
        """Stage bytes before the byte `at` of an existing binary file, or at its end."""
        place = self.canonical(path)
        where = "appended" if at == self.size(place) else f"inserted at byte {at}"
        self._stage(place, _Inserted(at, data), fix, summary, f"{len(data)} bytes {where}: {summary}")

    def _unresolved(self, path: str) -> str:
        folder, name = posixpath.split(path)
        return posixpath.join(self.canonical(folder), name)

    def _stage(self, place: str, edit: _Edit, fix: str, summary: str, diff: str) -> None:
        for touched in (place, posixpath.dirname(place)):
            root, inside = self._locate(touched)
            if root.is_foreign(inside or "."):
                raise MigrationFailed(
                    "guest-file-owner",
                    f"the guest's {printable(touched)} does not belong to root and root's group",
                    hint=f"Run `chown root:root {printable(touched)}` in the guest, then convert again",
                )
            if attribute := root.held_by(inside or "."):
                raise write_errors.held(printable(touched), attribute)
        self._require_room(place, edit)
        self._edits[place] = edit
        self._changes.append(Change(fix=fix, path=printable(place), summary=printable(summary), diff=printable(diff)))

    def _require_room(self, place: str, edit: _Edit) -> None:
        """Check before anything is written that a small file system has room for the edits."""
        root, _ = self._locate(place)
        room = root.room()
        if room is None:
            return
        staged = [known for path, known in self._edits.items() if path != place and self._locate(path)[0] is root]
        growing = [known for known in (*staged, edit) if isinstance(known, _Content | _Inserted)]
        needed = sum(len(known.data) + FILE_OVERHEAD for known in growing)
        if needed > room:
            raise write_errors.full(printable(self._mount_point(place)), FreeSpace(room), FreeSpace(needed))

    def _needed_on(self, root: Files) -> FreeSpace:
        """What all edits of one file system take together; each file is written as a draft first."""
        located = [(*self._locate(place), edit) for place, edit in self._edits.items()]
        here = [(inside, edit) for home, inside, edit in located if home is root]
        return FreeSpace(sum(_needed(root, inside, edit) for inside, edit in here), len(here))

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(self._changes)

    @property
    def new_contents(self) -> Mapping[str, bytes]:
        """The staged content of each file that is replaced as a whole."""
        return {place: edit.data for place, edit in self._edits.items() if isinstance(edit, _Content)}

    @property
    def touched(self) -> tuple[str, ...]:
        """Mount points of the file systems with staged edits."""
        return tuple({self._mount_point(place): None for place in self._edits})

    def mark(self) -> Mark:
        return Mark(dict(self._edits), self.changes)

    def restore(self, mark: Mark) -> None:
        """Stage exactly the edits of `mark`."""
        self._edits, self._changes = dict(mark.edits), list(mark.changes)

    # ------------------------------------------------------------ writing

    def commit(self) -> tuple[Change, ...]:
        """Write the staged edits durably, each file atomically.

        Raises MigrationFailed (`guest-write-failed`, `guest-file-held`, `guest-read-only`, `guest-full`).
        """
        unlabelled = []
        for place, edit in self._edits.items():
            root, inside = self._locate(place)
            if isinstance(edit, _Inserted) and root.space().bytes < _needed(root, inside, edit):
                raise write_errors.full(printable(self._mount_point(place)), root.space(), self._needed_on(root))
            try:
                if not self._apply(root, inside, edit):
                    unlabelled.append(printable(place))
            except OSError as error:
                where = printable(self._mount_point(place))
                raise write_errors.failed(
                    printable(place), where, error, root.space(), self._needed_on(root)
                ) from error
        for root in self._mounts.values() if self._edits else ():
            root.sync()
        self._edits.clear()
        self.unlabelled = tuple(unlabelled)
        changes, self._changes = self.changes, []
        return changes

    @staticmethod
    def _apply(root: Files, inside: str, edit: _Edit) -> bool:
        if isinstance(edit, _Inserted):
            return root.insert(inside, edit.at, edit.data)
        if isinstance(edit, _Removed):
            root.unlink(inside)
            return True
        folder = posixpath.dirname(inside)
        parts = folder.split("/") if folder else []
        for depth in range(len(parts)):
            if not root.exists("/".join(parts[: depth + 1])):
                root.mkdir("/".join(parts[: depth + 1]))
        if isinstance(edit, _Content):
            return root.replace(inside, edit.data, new_mode=edit.mode)
        try:
            root.lstat(inside)
        except FileNotFoundError:
            pass
        else:
            root.unlink(inside)
        root.symlink(inside, edit.target)
        return True


def _needed(root: Files, inside: str, edit: _Edit) -> int:
    """Bytes that the edit takes until it is done: a draft has the whole file."""
    if isinstance(edit, _Inserted):
        return root.lstat(inside).st_size + len(edit.data) + SPARE_BYTES
    return (len(edit.data) if isinstance(edit, _Content) else 0) + FILE_OVERHEAD


def printable(text: str) -> str:
    """Text of a guest, safe for a terminal, JSON and a report: no control or incomplete characters."""
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """A name or a value of a guest, within a line of a report: as `printable`, without line breaks and tabs."""
    return printable(text).replace("\n", "�").replace("\t", "�")


def _lines(text: str) -> list[str]:
    """Lines as diff counts them; a missing newline at the end is a line of its own, as in patch files."""
    if not text:
        return []
    lines = text.split("\n")
    return lines[:-1] if not lines[-1] else [*lines, "\\ No newline at end of file"]


def _diff(place: str, before: str, after: str, *, after_name: str | None = None) -> str:
    lines = difflib.unified_diff(
        _lines(before),
        _lines(after),
        fromfile=place if before else "/dev/null",
        tofile=after_name or place,
        lineterm="",
        n=1,
    )
    text = "\n".join(lines)
    return text if len(text) <= MAX_DIFF else text[:MAX_DIFF] + "\n... (shortened)"
