"""The "newc" cpio format: a deterministic writer, and a reader of names.

Source: Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from hyper2kvmd.errors import MigrationFailed

MAGIC = (b"070701", b"070702")
HEADER_SIZE = 110
TRAILER = "TRAILER!!!"
MAX_NAME = 4096


class Archive:
    """Builds an archive: entries in the given order, owned by root, time 0."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def folder(self, path: str) -> None:
        self._add(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._add(path, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def finish(self) -> bytes:
        self._inode = -1
        self._add(TRAILER, 0, b"")
        return b"".join(self._parts)

    def _add(self, path: str, mode: int, data: bytes) -> None:
        self._inode += 1
        name = path.encode(errors="surrogateescape") + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
        header = MAGIC[0] + b"".join(b"%08X" % value for value in fields)
        self._parts += [header, name, _padding(HEADER_SIZE + len(name)), data, _padding(len(data))]


def _padding(length: int) -> bytes:
    return b"\0" * (-length % 4)


class Stream:
    """Bytes pulled in pieces of any size (b"" at the end), read in pieces of the requested size."""

    def __init__(self, pull: Callable[[], bytes]) -> None:
        self._pull = pull
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes pulled and not read yet."""
        return len(self._held)

    def peek(self, size: int) -> bytes:
        while len(self._held) < size and (more := self._pull()):
            self._held += more
        return self._held[:size]

    def read(self, size: int) -> bytes:
        data = self.peek(size)
        self._held = self._held[size:]
        return data

    def skip(self, size: int) -> bool:
        """False if the stream ends first."""
        while size > len(self._held):
            size -= len(self._held)
            self._held = self._pull()
            if not self._held:
                return False
        self._held = self._held[size:]
        return True

    def some(self) -> bytes:
        """The next available bytes, b"" at the end."""
        data, self._held = self._held or self._pull(), b""
        return data

    def give_back(self, data: bytes) -> None:
        self._held = data + self._held

    def skip_zeros(self) -> None:
        while data := self.some():
            rest = data.lstrip(b"\0")
            if rest:
                self.give_back(rest)
                return


@dataclass
class Contents:
    """The contents of archives: names without a leading slash, and the content of the requested files."""

    names: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    held: int = 0
    """Bytes of the names and files."""

    def hold(self, data: str | bytes) -> None:
        self.held += len(data) + OVERHEAD
        if self.held > MAX_HELD:
            raise Damage(f"it has names and settings of more than {MAX_HELD >> 20} MiB")

    def merge(self, later: Contents) -> None:
        """Add what is unpacked over this."""
        self.names |= later.names
        self.links = self.links - later.names | later.links
        self.files |= later.files
        self.held += later.held


MAX_KEPT = 1 << 20
MAX_HELD = 64 << 20
OVERHEAD = 100
"""Bytes of memory for each name, besides its characters."""


class Damage(Exception):
    """What is wrong with an archive."""


def read(stream: Stream, contents: Contents, keep: Callable[[str], bool]) -> None:
    """Read one archive up to its trailer, from a stream that is at its magic. Raises Damage."""
    while True:
        header = stream.read(HEADER_SIZE)
        try:
            numbers = [int(header[at : at + 8], 16) for at in range(6, HEADER_SIZE, 8)]
        except ValueError:
            numbers = []
        if header[:6] not in MAGIC or len(header) != HEADER_SIZE or not numbers:
            raise Damage("a cpio header is invalid")
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        if not 0 < name_size <= MAX_NAME:
            raise Damage("a cpio name is too long")
        raw = stream.read(name_size + len(_padding(HEADER_SIZE + name_size)))
        name = raw[:name_size].rstrip(b"\0").decode(errors="surrogateescape").removeprefix("./").strip("/")
        if name == TRAILER:
            return
        contents.hold(name)
        contents.names.add(name)
        if stat.S_ISLNK(mode):
            contents.links.add(name)
        padded = size + len(_padding(size))
        if stat.S_ISREG(mode) and size <= MAX_KEPT and keep(name):
            contents.files[name] = stream.read(padded)[:size]
            contents.hold(contents.files[name])
        elif not stream.skip(padded):
            raise Damage("the archive ends in the middle of a file")


def damaged(fact: str) -> MigrationFailed:
    return MigrationFailed(
        "initrd-damaged",
        f"an initramfs of the guest cannot be read: {fact}",
        hint="Rebuild it in the guest before the migration, or set regen_initramfs: false",
    )


def parents(path: str, below: Collection[str]) -> list[str]:
    """Folders above `path` that are not in `below`, outermost first."""
    parts = path.split("/")[:-1]
    folders = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return [folder for folder in folders if folder not in below]
