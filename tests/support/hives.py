"""Registry hives and transaction logs made from nothing, by code that shares none with the reader of the product.

Source: Windows registry file format specification by M. Suhanov.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

NONE = 0xFFFFFFFF
WRITTEN = 133_500_000_000_000_000
SEGMENT = 16344
Data = tuple[int, bytes]
"""Type and data of a value."""


@dataclass
class Node:
    """A key; `kind` is that of the list of its subkeys."""

    values: dict[str, Data] = field(default_factory=dict)
    keys: dict[str, Node] = field(default_factory=dict)
    kind: bytes = b"lh"
    class_name: bytes = b""


def node(tree: Mapping[str, object]) -> Node:
    r"""Dictionaries are keys, pairs are values: `{"Select": {"Current": (4, b"\1\0\0\0")}}`."""
    made = Node()
    for name, what in tree.items():
        if isinstance(what, Mapping):
            made.keys[name] = node(what)
        else:
            assert isinstance(what, tuple)
            made.values[name] = what
    return made


def sz(text: str) -> Data:
    return 1, (text + "\0").encode("utf-16-le", "surrogatepass")


def dword(number: int) -> Data:
    return 4, struct.pack("<I", number)


def checksum(block: bytes | bytearray) -> int:
    total = 0
    for (word,) in struct.iter_unpack("<I", block[:508]):
        total ^= word
    return {0: 1, NONE: NONE - 1}.get(total, total)


@dataclass
class Builder:
    """Writes bins of 4096 bytes, or longer ones for cells that do not fit."""

    minor: int = 5
    sequences: tuple[int, int] = (7, 7)
    leaf: int = 400
    """Subkeys in one list."""
    bins: bytearray = field(default_factory=bytearray)
    at: int = 0
    end: int = 0
    security: int = NONE
    keys: int = 0

    def cell(self, content: bytes) -> int:
        size = (len(content) + 4 + 7) & ~7
        if self.at + size > self.end:
            self._close()
            self.at, length = len(self.bins), (size + 32 + 4095) & ~4095
            self.bins += struct.pack("<4sIIQQI", b"hbin", self.at, length, 0, WRITTEN, 0) + bytes(length - 32)
            self.end, self.at = self.at + length, self.at + 32
        offset = self.at
        self.bins[offset : offset + size] = struct.pack("<i", -size) + content + bytes(size - 4 - len(content))
        self.at += size
        return offset

    def _close(self) -> None:
        if self.at < self.end:
            struct.pack_into("<i", self.bins, self.at, self.end - self.at)

    def hive(self, root: Node) -> bytes:
        descriptor = bytes.fromhex("0100048014000000000000000000000000000000")
        self.security = self.cell(struct.pack("<2sHIIII", b"sk", 0, 0, 0, 0, len(descriptor)) + descriptor)
        offset = self.key("ROOT", root, NONE, flags=0x0C)
        struct.pack_into("<III", self.bins, self.security + 8, self.security, self.security, self.keys)
        self._close()
        first, second = self.sequences
        fields = (b"regf", first, second, WRITTEN, 1, self.minor, 0, 1, offset, len(self.bins), 1)
        block = bytearray(struct.pack("<4sIIQIIIIIII", *fields) + "SYSTEM".encode("utf-16-le")).ljust(4096, b"\0")
        struct.pack_into("<I", block, 508, checksum(block))
        return bytes(block + self.bins)

    def key(self, name: str, what: Node, parent: int, flags: int = 0) -> int:
        self.keys += 1
        raw, ascii_flag = _name(name)
        own = self.cell(bytes(76) + raw)
        listed = self._values(what)
        below = [(each, self.key(each, child, own)) for each, child in sorted(what.keys.items(), key=_order)]
        lists = self._lists(below, what.kind)
        named = self.cell(what.class_name) if what.class_name else NONE
        longest = max((2 * len(each) for each in what.keys), default=0)
        longest_value = max((2 * len(each) for each in what.values), default=0)
        largest = max((len(data) for _, data in what.values.values()), default=0)
        numbers = (0, parent, len(below), 0, lists, NONE, len(what.values), listed, self.security, named)
        sizes = (longest, 0, longest_value, largest, 0, len(raw), len(what.class_name))
        flags |= 0x20 if ascii_flag else 0
        record = struct.pack("<2sHQ10I5IHH", b"nk", flags, WRITTEN, *numbers, *sizes) + raw
        self.bins[own + 4 : own + 4 + len(record)] = record
        return own

    def _lists(self, below: Sequence[tuple[str, int]], kind: bytes) -> int:
        if not below:
            return NONE
        leaves = [self._leaf(below[at : at + self.leaf], kind) for at in range(0, len(below), self.leaf)]
        if len(leaves) == 1:
            return leaves[0]
        return self.cell(struct.pack(f"<2sH{len(leaves)}I", b"ri", len(leaves), *leaves))

    def _leaf(self, below: Sequence[tuple[str, int]], kind: bytes) -> int:
        content = struct.pack("<2sH", kind, len(below))
        for name, offset in below:
            mark = {b"lh": _hash(name), b"lf": name.encode("latin-1", "replace")[:4].ljust(4, b"\0"), b"li": b""}[kind]
            content += struct.pack("<I", offset) + mark
        return self.cell(content)

    def _values(self, what: Node) -> int:
        if not what.values:
            return NONE
        offsets = [self._value(name, *data) for name, data in what.values.items()]
        return self.cell(struct.pack(f"<{len(offsets)}I", *offsets))

    def _value(self, name: str, kind: int, data: bytes) -> int:
        raw, ascii_flag = _name(name)
        if len(data) <= 4:
            size, where = len(data) | 1 << 31, int.from_bytes(data, "little")
        elif len(data) <= SEGMENT or self.minor < 4:
            size, where = len(data), self.cell(data)
        else:
            pieces = [self.cell(data[at : at + SEGMENT]) for at in range(0, len(data), SEGMENT)]
            listed = self.cell(struct.pack(f"<{len(pieces)}I", *pieces))
            size, where = len(data), self.cell(struct.pack("<2sHI", b"db", len(pieces), listed))
        return self.cell(struct.pack("<2sHIIIHH", b"vk", len(raw), size, where, kind, int(ascii_flag), 0) + raw)


def hive(
    tree: Mapping[str, object] | Node, *, minor: int = 5, sequences: tuple[int, int] = (7, 7), leaf: int = 400
) -> bytes:
    return Builder(minor, sequences, leaf).hive(tree if isinstance(tree, Node) else node(tree))


def _name(name: str) -> tuple[bytes, bool]:
    try:
        return name.encode("latin-1"), True
    except UnicodeEncodeError:
        return name.encode("utf-16-le", "surrogatepass"), False


def _order(item: tuple[str, Node]) -> bytes:
    return item[0].upper().encode("utf-16-be", "surrogatepass")


def _hash(name: str) -> bytes:
    total = 0
    for character in name.upper():
        total = (total * 37 + ord(character)) % (1 << 32)
    return struct.pack("<I", total)


# ---------------------------------------------------------------- transaction logs


Pages = Iterable[tuple[int, bytes]]
"""Offsets in the bins, and what is written there."""


def marvin32(data: bytes) -> bytes:
    """The hash of entries, as its inventors describe it: rounds of additions, exclusive ors and rotations."""
    low, high = 0x7A4E55C5, 0x82EF4D88

    def rotated(word: int, by: int) -> int:
        return (word << by | word >> (32 - by)) & NONE

    padded = data + b"\x80" + bytes(-(len(data) + 1) % 4) + bytes(4)
    for at in range(0, len(padded), 4):
        low = (low + int.from_bytes(padded[at : at + 4], "little")) & NONE
        high ^= low
        low = (rotated(low, 20) + high) & NONE
        high = rotated(high, 9) ^ low
        low = (rotated(low, 27) + high) & NONE
        high = rotated(high, 19)
    return struct.pack("<II", low, high)


def entry(sequence: int, bins_size: int, pages: Pages, flags: int = 0) -> bytes:
    """One entry of a log."""
    listed = list(pages)
    body = b"".join(struct.pack("<II", at, len(page)) for at, page in listed) + b"".join(page for _, page in listed)
    size = (40 + len(body) + 511) & ~511
    body = body.ljust(size - 40, b"\0")
    head = struct.pack("<4sIIIII", b"HvLE", size, flags, sequence, bins_size, len(listed)) + marvin32(body)
    return head + marvin32(head) + body


def log(primary: bytes, sequence: int, entries: Iterable[bytes], kind: int = 6) -> bytes:
    """A log whose first entry has this sequence number."""
    block = bytearray(primary[:512])
    struct.pack_into("<II", block, 4, sequence, sequence)
    struct.pack_into("<I", block, 28, kind)
    struct.pack_into("<I", block, 508, checksum(block))
    return bytes(block) + b"".join(entries)


def marked(primary: bytes, first: int, second: int) -> bytes:
    """A hive with these sequence numbers: as while it is written, if they differ."""
    data = bytearray(primary)
    struct.pack_into("<II", data, 4, first, second)
    struct.pack_into("<I", data, 508, checksum(data))
    return bytes(data)


def differing_pages(before: bytes, after: bytes) -> list[tuple[int, bytes]]:
    """The pages of 4096 bytes in which the bins of two hives differ."""
    found = []
    for at in range(4096, len(after), 4096):
        page = after[at : at + 4096]
        if page != before[at : at + 4096]:
            found.append((at - 4096, page))
    return found
