"""Reads the directory of a ZIP archive: its files, and whether their bytes are stored as they are.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16 and 4.5.3 (ZIP64).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hyper2kvmd.disk import faults as damage
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.machines.archives import faults
from hyper2kvmd.machines.archives.names import MAX_FILES, is_left_out, require_new, vetted

MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
END = struct.Struct("<4s4H2LH")
"""Magic, this disk, disk of the directory, entries here, entries, bytes and offset of the directory, comment."""
END_MAGIC, LONGEST_COMMENT = b"PK\x05\x06", 0xFFFF
LOCATOR, LOCATOR_MAGIC = struct.Struct("<4sLQL"), b"PK\x06\x07"
END64, END64_MAGIC = struct.Struct("<4sQ2H2L4Q"), b"PK\x06\x06"
ENTRY, ENTRY_MAGIC = struct.Struct("<4s6H3L5H2L"), b"PK\x01\x02"
LOCAL, LOCAL_MAGIC = struct.Struct("<4s5H3L2H"), b"PK\x03\x04"
EXTRA, ZIP64 = struct.Struct("<2H"), 0x0001
STORED, DEFLATED = 0, 8
ENCRYPTED, UTF_8 = 1 << 0, 1 << 11
LARGEST_DIRECTORY = 16 << 20
"""Bytes: far more than MAX_FILES names."""
IN_ZIP64 = 0xFFFFFFFF
UNIX, DOS_DIRECTORY = 3, 0x10
TYPE, REGULAR = 0o170000, (0, 0o100000)


class Zipped(NamedTuple):
    """A file in an archive; its bytes begin at `offset`, `packed` of them, and become `length`."""

    name: str
    offset: int
    packed: int
    length: int
    is_deflated: bool
    crc: int


def is_zip(head: bytes) -> bool:
    return head.startswith(MAGICS)


def read_members(file: SourceFile) -> tuple[Zipped, ...]:
    """The regular files. Raises Unsafe (`archive-unsafe`), MigrationFailed (`archive-too-large`, `source-truncated`,
    `source-corrupt`, `source-unsupported`)."""
    found: dict[str, Zipped] = {}
    for one in _entries(file):
        require_new(one.name, found, len(found), file.path)
        found[one.name] = one
    _require_apart(file, found.values())
    return tuple(found.values())


def _require_apart(file: SourceFile, members: Iterable[Zipped]) -> None:
    """Two files of the same bytes would cost their unpacking twice, and more of them many times."""
    end = 0
    for one in sorted(members, key=lambda one: one.offset):
        if one.offset < end:
            raise damage.corrupt(file.path, f"{one.name} begins inside another file of the archive")
        end = one.offset + one.packed


def _entries(file: SourceFile) -> Iterator[Zipped]:
    count, size, at = _directory(file)
    if count > MAX_FILES or size > LARGEST_DIRECTORY:
        raise faults.too_large(file.path, f"its directory has {count} files and {size} bytes")
    data = file.read_whole(at, size)
    position = 0
    for _ in range(count):
        if position + ENTRY.size > len(data) or not data.startswith(ENTRY_MAGIC, position):
            raise damage.corrupt(file.path, f"its directory has no entry at byte {at + position}")
        fields = ENTRY.unpack_from(data, position)
        name_at = position + ENTRY.size
        extra_at = name_at + fields[10]
        comment_at = extra_at + fields[11]
        raw, extra = data[name_at:extra_at], data[extra_at:comment_at]
        position = comment_at + fields[12]
        one = _entry(file, fields, raw, extra)
        if one is not None:
            yield one


def _entry(file: SourceFile, fields: tuple[int, ...], raw: bytes, extra: bytes) -> Zipped | None:
    _, made_by, _, flags, method, _, _, crc, packed, length, _, _, _, _, _, attributes, header = fields
    is_unix = made_by >> 8 == UNIX
    if raw.endswith(b"/") or (not is_unix and attributes & DOS_DIRECTORY):
        return None
    name = vetted(raw, file.path)
    if is_unix and attributes >> 16 & TYPE not in REGULAR:
        raise faults.unsafe(file.path, f"{name!r} in it is a link or a device")
    if is_left_out(name):
        return None
    if flags & ENCRYPTED or method not in (STORED, DEFLATED):
        what = "is encrypted" if flags & ENCRYPTED else f"is compressed by method {method}"
        raise damage.unsupported(
            file.path, f"has a file that {what}: {name}", "Unpack it, and set ova to the directory"
        )
    length, packed, header = _in_full(file, (length, packed, header), extra)
    if method == STORED and packed != length:
        raise damage.corrupt(file.path, f"{name} has {packed} bytes stored of {length}")
    return Zipped(name, _content_at(file, header, raw, packed), packed, length, method == DEFLATED, crc)


def _in_full(file: SourceFile, values: tuple[int, int, int], extra: bytes) -> tuple[int, int, int]:
    """Sizes and offset; those that do not fit into 32 bits are in the extra field."""
    missing = sum(value == IN_ZIP64 for value in values)
    if not missing:
        return values
    at = 0
    while at + EXTRA.size <= len(extra):
        kind, size = EXTRA.unpack_from(extra, at)
        if kind == ZIP64 and size >= 8 * missing and at + EXTRA.size + 8 * missing <= len(extra):
            found = iter(struct.unpack_from(f"<{missing}Q", extra, at + EXTRA.size))
            first, second, third = (next(found) if value == IN_ZIP64 else value for value in values)
            return first, second, third
        at += EXTRA.size + size
    raise damage.corrupt(file.path, "its directory lacks a size of 64 bits")


def _content_at(file: SourceFile, header: int, raw: bytes, packed: int) -> int:
    """Where the bytes of a file begin: after its own header, which repeats its name."""
    fields = LOCAL.unpack(file.read_whole(header, LOCAL.size))
    if fields[0] != LOCAL_MAGIC or file.read(header + LOCAL.size, fields[9]) != raw:
        raise damage.corrupt(file.path, f"its directory and its header at byte {header} name different files")
    start: int = header + LOCAL.size + fields[9] + fields[10]
    if start + packed > file.size:
        raise damage.truncated(file.path, f"a file in it ends at byte {start + packed} of {file.size}")
    return start


def _directory(file: SourceFile) -> tuple[int, int, int]:
    """Number of entries, bytes and offset."""
    start = max(0, file.size - END.size - LONGEST_COMMENT)
    tail = file.read(start, file.size - start)
    found = tail.rfind(END_MAGIC)
    if found < 0 or found + END.size > len(tail):
        raise damage.truncated(file.path, "the directory at the end of the archive is missing")
    _, disk, _, _, count, size, at, _ = END.unpack_from(tail, found)
    if IN_ZIP64 in (size, at) or count == 0xFFFF:
        count, size, at, disk = _directory64(file, start + found)
    if disk:
        raise damage.unsupported(file.path, "is one part of an archive of several", "Join the parts with `zip -s 0`")
    return count, size, at


def _directory64(file: SourceFile, end: int) -> tuple[int, int, int, int]:
    magic, _, at, _ = LOCATOR.unpack(file.read_whole(max(0, end - LOCATOR.size), LOCATOR.size))
    if magic != LOCATOR_MAGIC:
        raise damage.corrupt(file.path, "its ZIP64 directory is missing")
    fields = END64.unpack(file.read_whole(at, END64.size))
    if fields[0] != END64_MAGIC:
        raise damage.corrupt(file.path, f"its ZIP64 directory is not at byte {at}")
    return fields[7], fields[8], fields[9], fields[4]
