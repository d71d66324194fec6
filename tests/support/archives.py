"""Archives as they are and as they should not be, written byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.model.disks import ArchiveMember

BLOCK = 512


@dataclass(frozen=True)
class Entry:
    """One header of a tar archive, and what follows it."""

    name: str | bytes
    data: bytes = b""
    kind: bytes = b"0"
    size: int | None = None
    """As the header says, if that is not the length of the data."""
    base256: bool = False
    magic: bytes = b"ustar\x0000"
    prefix: bytes = b""
    link: bytes = b""
    signed_sum: bool = False


def header(entry: Entry) -> bytes:
    name = entry.name.encode() if isinstance(entry.name, str) else entry.name
    size = len(entry.data) if entry.size is None else entry.size
    number = b"\x80" + size.to_bytes(11, "big") if entry.base256 else b"%011o\0" % size
    head = bytearray(
        name.ljust(100, b"\0")
        + b"0000644\0" + b"0000000\0" * 2
        + number + b"%011o\0" % 0
        + b" " * 8
        + entry.kind
        + entry.link.ljust(100, b"\0")
        + entry.magic
        + bytes(80)
        + entry.prefix.ljust(155, b"\0")
    ).ljust(BLOCK, b"\0")  # fmt: skip
    total = sum(byte - 256 if entry.signed_sum and byte > 127 else byte for byte in head)
    head[148:156] = b"%06o\0 " % (total % (1 << 18))
    return bytes(head)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def tar(*entries: Entry, end: bytes = bytes(2 * BLOCK)) -> bytes:
    return b"".join(header(entry) + padded(entry.data) for entry in entries) + end


def pax(records: Sequence[tuple[str, str]], kind: bytes = b"x") -> Entry:
    lines = b"".join(_record(f"{key}={value}".encode()) for key, value in records)
    return Entry("PaxHeaders/x", lines, kind)


def _record(text: bytes) -> bytes:
    length = len(text) + 2
    while len(b"%d %s\n" % (length, text)) != length:
        length += 1
    return b"%d %s\n" % (length, text)


def packed(archive: Path, *files: Path, before: bytes = b"") -> tuple[ArchiveMember, ...]:
    """A plain tar of the files; each as a member. `before` is a first member, so that offsets differ from 0."""
    members, at = [], 0
    with archive.open("wb") as sink:
        for name, data in (("first.txt", before or b"x" * 700), *((file.name, file.read_bytes()) for file in files)):
            sink.write(header(Entry(name, data)) + padded(data))
            members.append(ArchiveMember(archive=archive, member=name, offset=at + BLOCK, length=len(data)))
            at += BLOCK + len(padded(data))
        sink.write(bytes(2 * BLOCK))
    return tuple(members[1:])
