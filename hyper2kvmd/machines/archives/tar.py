"""Reads tar archives of every writer: ustar, GNU, PAX, and those older than POSIX.

Python's own reader is not used: it holds extension headers of any size in memory, and takes quadratic time for some.
Sources: POSIX.1-2017, pax, section "Extended Description"; GNU tar manual, section "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hyper2kvmd.disk import faults as damage
from hyper2kvmd.machines.archives import faults
from hyper2kvmd.machines.archives.names import is_left_out, require_new, vetted
from hyper2kvmd.machines.archives.streams import ByteStream

BLOCK = 512
NAME, SIZE, CHECKSUM, KIND = slice(0, 100), slice(124, 136), slice(148, 156), slice(156, 157)
MAGIC, PREFIX = slice(257, 265), slice(345, 500)
POSIX_MAGIC = b"ustar\0"
"""GNU writes a blank instead of the NUL, and uses the place of the prefix for something else."""
FILES = (b"0", b"\0", b"7")
DIRECTORY, LABEL = b"5", b"V"
EXTENSION, GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
NAMES_OF_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file of GNU tar",
    b"M": "the rest of a file from another volume",
}
MAX_EXTENSION = 1 << 20
"""Bytes of one extension header; macOS stores attributes there."""
MAX_EXTENSIONS = 8
"""Extension headers before one file. Writers need two."""
LARGEST_SIZE = 1 << 62
BASE_256, NEGATIVE = 0x80, 0x40


class Member(NamedTuple):
    """A regular file in an archive; its bytes begin at `offset` of the stream."""

    name: str
    offset: int
    length: int


@dataclass
class Extended:
    """What extension headers say of the next file."""

    name: bytes | None = None
    size: int | None = None


def is_tar(head: bytes) -> bool:
    """Whether the first block of a file is a header."""
    return len(head) >= BLOCK and any(head[:BLOCK]) and _is_sound(head[:BLOCK])


def read_members(stream: ByteStream, path: Path) -> Iterator[Member]:
    """The regular files in the order in which they are stored. The caller may read each one before the next.

    Raises Unsafe (`archive-unsafe`) for links, devices, duplicates and names that lead elsewhere, and MigrationFailed
    (`archive-too-large`, `source-truncated`, `source-corrupt`, `source-unsupported`).
    """
    return _TarReader(stream, path).members()


@dataclass
class _TarReader:
    stream: ByteStream
    path: Path
    known: set[str] = field(default_factory=set)

    def members(self) -> Iterator[Member]:
        while (found := self._next()) is not None:
            head, extended = found
            size = extended.size if extended.size is not None else self._number(head[SIZE], "a size")
            start = self.stream.position
            if (member := self._member(head, extended, size)) is not None:
                yield member
            self.stream.skip(start + size + -size % BLOCK - self.stream.position)
            if self.stream.position < start + size:
                raise damage.truncated(self.path, f"it ends at byte {self.stream.position} of {start + size}")

    def _member(self, head: bytes, extended: Extended, size: int) -> Member | None:
        raw = extended.name if extended.name is not None else _name(head)
        kind = head[KIND]
        if kind in (DIRECTORY, LABEL) or (kind == b"\0" and raw.endswith(b"/")):
            return None
        if kind not in FILES:
            what = NAMES_OF_KINDS.get(kind, f"an entry of the unknown type {kind!r}")
            raise faults.unsafe(self.path, f"{raw[:80].decode(errors='replace')!r} in it is {what}")
        name = vetted(raw, self.path)
        if is_left_out(name):
            return None
        require_new(name, self.known, len(self.known), self.path)
        self.known.add(name)
        self.stream.require(size, name)
        return Member(name, self.stream.position, size)

    def _next(self) -> tuple[bytes, Extended] | None:
        """The header of the next file, and its extensions; None at the end."""
        extended = Extended()
        for _ in range(MAX_EXTENSIONS + 1):
            head = self._header()
            if head is None:
                return None
            kind = head[KIND]
            if kind not in (EXTENSION, GLOBAL, LONG_NAME, LONG_LINK):
                return head, extended
            self._extend(extended, kind, self._extension(head))
        raise faults.too_large(self.path, f"more than {MAX_EXTENSIONS} extension headers precede one file")

    def _header(self) -> bytes | None:
        at = self.stream.position
        head = self.stream.read(BLOCK)
        if not any(head):
            if head and len(head) < BLOCK:
                raise damage.truncated(self.path, f"it ends at byte {at + len(head)}, inside a header")
            if at == 0:
                raise damage.corrupt(self.path, "the archive has no file")
            return None
        if len(head) < BLOCK:
            raise damage.truncated(self.path, f"it ends at byte {at + len(head)}, inside a header")
        if not _is_sound(head):
            raise damage.corrupt(self.path, f"there is no header of a file at byte {at} of the archive")
        return head

    def _extension(self, head: bytes) -> bytes:
        size = self._number(head[SIZE], "an extension")
        if size > MAX_EXTENSION:
            raise faults.too_large(self.path, f"an extension header has {size} bytes, more than {MAX_EXTENSION}")
        whole = size + -size % BLOCK
        data = self.stream.read(whole)
        if len(data) < whole:
            raise damage.truncated(self.path, "it ends inside an extension header")
        return data[:size]

    def _extend(self, extended: Extended, kind: bytes, data: bytes) -> None:
        if kind == LONG_NAME:
            extended.name = data.partition(b"\0")[0]
        elif kind in (EXTENSION, GLOBAL):
            for key, value in self._records(data):
                if key in (b"path", b"size") and kind == GLOBAL:
                    raise damage.corrupt(self.path, "a global header gives all files the same name or size")
                if key == b"path":
                    extended.name = value
                elif key == b"size":
                    extended.size = self._decimal(value)
                elif key.startswith(b"GNU.sparse."):
                    raise faults.unsafe(self.path, f"a file in it is {NAMES_OF_KINDS[b'S']}")

    def _records(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Of a PAX header: `length key=value`, where the length counts the whole line."""
        at = 0
        while at < len(data) and data[at]:
            space = data.find(b" ", at, at + 8)
            length = self._decimal(data[at:space]) if space > at else 0
            line = data[at : at + length]
            if not line.endswith(b"\n") or len(line) < length:
                raise damage.corrupt(self.path, "an extension header of the archive has a line of the wrong length")
            key, equals, value = line[space + 1 - at : -1].partition(b"=")
            if not equals:
                raise damage.corrupt(self.path, "an extension header of the archive has a line without a value")
            yield key, value
            at += length

    def _decimal(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > 19 or int(text) > LARGEST_SIZE:
            raise damage.corrupt(self.path, f"an extension header says {text[:40]!r} instead of a size")
        return int(text)

    def _number(self, field: bytes, what: str) -> int:
        """Octal digits, or GNU's base-256: all bits but the first two."""
        if field[0] & BASE_256:
            value = int.from_bytes(field, "big") & ~(BASE_256 << 8 * (len(field) - 1))
            if field[0] & NEGATIVE or value > LARGEST_SIZE:
                raise damage.corrupt(self.path, f"a header says {field!r} for {what}")
            return value
        found = _octal(field)
        if found is None:
            raise damage.corrupt(self.path, f"a header says {field!r} for {what}")
        return found


def _name(head: bytes) -> bytes:
    name, prefix = head[NAME].partition(b"\0")[0], head[PREFIX].partition(b"\0")[0]
    return prefix + b"/" + name if prefix and head[MAGIC].startswith(POSIX_MAGIC) else name


def _octal(field: bytes) -> int | None:
    digits = field.partition(b"\0")[0].strip(b" ")
    if any(byte not in b"01234567" for byte in digits):
        return None
    return int(digits or b"0", 8)


def _is_sound(head: bytes) -> bool:
    """By the sum of its bytes; the sum itself counts as blanks. Some writers added signed bytes."""
    stated = _octal(head[CHECKSUM])
    rest = bytearray(head)
    rest[CHECKSUM] = b" " * 8
    total = sum(rest)
    return stated is not None and stated in (total, total - 256 * sum(byte > 127 for byte in rest))
