"""The format of a folder: 32-byte slots, one for a file's short name, those before it for its long name."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from hyper2kvmd.volumes.fat.geometry import SLOT

READ_ONLY, HIDDEN, SYSTEM, LABEL, FOLDER, ARCHIVE = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
LONG_NAME = READ_ONLY | HIDDEN | SYSTEM | LABEL
END, DELETED, ESCAPED = 0x00, 0xE5, 0x05
LAST_PART = 0x40
LOWER_BASE, LOWER_SUFFIX = 0x08, 0x10
SHORT = struct.Struct("<11sBBBHHHHHHHI")
LONG = struct.Struct("<B10sBBB12sH4s")
PART = 13
"""Characters of a long name in one slot."""
NAME_LIMIT = 255
FORBIDDEN = frozenset('"*/:<>?\\|') | {chr(code) for code in range(32)}
SHORT_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")
CODE_PAGE = "cp437"


@dataclass(frozen=True)
class DirectoryEntry:
    """A file or a folder. `slots` are its slots in the folder; the last one has the short name."""

    name: str
    short: bytes
    attributes: int
    cluster: int
    """The first one; 0 for an empty file."""
    size: int
    slots: range

    @property
    def is_folder(self) -> bool:
        return bool(self.attributes & FOLDER)


def entries(data: bytes) -> list[DirectoryEntry]:
    """Every file and folder, without volume labels and entries with a name that FAT forbids."""
    found = []
    long: list[bytes] = []
    for index in range(len(data) // SLOT):
        slot = data[index * SLOT : index * SLOT + SLOT]
        if slot[0] == END:
            break
        if slot[0] == DELETED:
            long = []
        elif slot[11] & 0x3F == LONG_NAME:
            long = [*(long if not slot[0] & LAST_PART else []), slot]
        else:
            entry = _entry(index, slot, long)
            long = []
            if not entry.attributes & LABEL and is_name(entry.name):
                found.append(entry)
    return found


def _entry(index: int, slot: bytes, long: list[bytes]) -> DirectoryEntry:
    short, attributes, case, _, _, _, _, high, _, _, low, size = SHORT.unpack(slot)
    name = _long_name(long, _checksum(short))
    first = index - len(long) if name else index
    return DirectoryEntry(
        name or _short_name(short, case), short, attributes, high << 16 | low, size, range(first, index + 1)
    )


def _long_name(parts: list[bytes], checksum: int) -> str:
    """Empty unless the parts are complete, in order and of this file."""
    units = b""
    for number, part in enumerate(reversed(parts), start=1):
        order, first, _, _, mark, second, _, third = LONG.unpack(part)
        if order & ~LAST_PART != number or mark != checksum or bool(order & LAST_PART) != (number == len(parts)):
            return ""
        units += first + second + third
    name = units.decode("utf-16-le", errors="replace").partition("\0")[0]
    return name if len(name) <= NAME_LIMIT else ""


def _short_name(short: bytes, case: int) -> str:
    raw = bytes([DELETED]) + short[1:] if short[0] == ESCAPED else short
    base, suffix = raw[:8].decode(CODE_PAGE).rstrip(" "), raw[8:].decode(CODE_PAGE).rstrip(" ")
    base = base.lower() if case & LOWER_BASE else base
    suffix = suffix.lower() if case & LOWER_SUFFIX else suffix
    return f"{base}.{suffix}" if suffix else base


def is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_LIMIT and not name.endswith((" ", ".")) and FORBIDDEN.isdisjoint(name)


def same_name(one: str, other: str) -> bool:
    return one.upper() == other.upper()


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    return total


# ---------------------------------------------------------------- writing


def slots_for(name: str, shorts: Collection[bytes], attributes: int, cluster: int, size: int, now: datetime) -> bytes:
    """The slots of a new entry; `shorts` are the short names already in its folder."""
    short = _fitting(name)
    parts: list[bytes] = []
    if short is None:
        short = _numbered(name, shorts)
        units = name.encode("utf-16-le")
        count = -(-len(units) // (2 * PART))
        room = count * 2 * PART
        units = (units + b"\0\0" if len(units) < room else units).ljust(room, b"\xff")
        for number in range(count, 0, -1):
            piece = units[(number - 1) * 2 * PART : number * 2 * PART]
            order = number | (LAST_PART if number == count else 0)
            parts.append(LONG.pack(order, piece[:10], LONG_NAME, 0, _checksum(short), piece[10:22], 0, piece[22:]))
    return b"".join(parts) + short_slot(short, attributes, cluster, size, now)


def short_slot(short: bytes, attributes: int, cluster: int, size: int, now: datetime) -> bytes:
    day, time = _dos_time(now)
    return SHORT.pack(short, attributes, 0, 0, time, day, day, cluster >> 16, time, day, cluster & 0xFFFF, size)


def updated(slot: bytes, cluster: int, size: int, now: datetime) -> bytes:
    """An entry's short-name slot with new content; its name, attributes and creation date are kept."""
    fields = list(SHORT.unpack(slot))
    fields[6], fields[8], fields[9] = _dos_time(now)[0], _dos_time(now)[1], _dos_time(now)[0]
    fields[7], fields[10], fields[11] = cluster >> 16, cluster & 0xFFFF, size
    return SHORT.pack(*fields)


def free_run(data: bytes, count: int) -> int | None:
    """Index of the first of `count` free slots in a row; None when there are none."""
    run = 0
    ended = False
    for index in range(len(data) // SLOT):
        first = data[index * SLOT]
        ended = ended or first == END
        run = run + 1 if ended or first == DELETED else 0
        if run == count:
            return index - count + 1
    return None


def _fitting(name: str) -> bytes | None:
    """The name as a short name, if it is a valid one."""
    base, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
    if not 0 < len(base) <= 8 or len(suffix) > 3 or (dot and not suffix):
        return None
    return base.ljust(8).encode() + suffix.ljust(3).encode() if SHORT_CHARACTERS.issuperset(base + suffix) else None


def _numbered(name: str, shorts: Collection[bytes]) -> bytes:
    stem, _, suffix = name.upper().rpartition(".") if "." in name.strip(".") else (name.upper(), "", "")
    base = "".join(char for char in stem if char in SHORT_CHARACTERS)
    end = "".join(char for char in suffix if char in SHORT_CHARACTERS)[:3].ljust(3).encode()
    for number in range(1, 1_000_000):
        tail = f"~{number}"
        short = (base[: 8 - len(tail)] + tail).ljust(8).encode() + end
        if short not in shorts:
            return short
    raise AssertionError("a folder has fewer entries than that")


def _dos_time(now: datetime) -> tuple[int, int]:
    return (now.year - 1980 << 9 | now.month << 5 | now.day), (now.hour << 11 | now.minute << 5 | now.second // 2)
