"""Reads a whole hive strictly, by code that shares none with the reader of the product, and proves that it is sound.

Sound means: bins and cells fill the file; each cell in use is referred to exactly once, security descriptors once by
each of their keys; lists are sorted, hashes and counts are right.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

from tests.support.hives import NONE, SEGMENT, Data, checksum

Tree = dict[str, "Tree | Data"]
"""Names of keys end with a backslash."""


LONGEST_LEAF = 507
"""As many as fill a bin of 4096 bytes."""


@dataclass
class Checked:
    data: bytes
    size: int = 0
    minor: int = 0
    cells: dict[int, bytes] = field(default_factory=dict)
    used: Counter[int] = field(default_factory=Counter)
    secured: Counter[int] = field(default_factory=Counter)

    def tree(self) -> Tree:
        """All keys and values. Raises AssertionError for a hive that is not sound."""
        signature, first, second, _, major, self.minor, kind, _, root, self.size, _ = struct.unpack_from(
            "<4sIIQIIIIIII", self.data
        )
        assert (signature, major, kind) == (b"regf", 1, 0)
        assert first == second
        assert struct.unpack_from("<I", self.data, 508)[0] == checksum(self.data[:512])
        self._bins()
        found = self._key(root, NONE)
        self._security()
        assert set(self.used) == set(self.cells), "cells that nothing refers to, or that are not there"
        assert set(self.used.values()) == {1}
        return found

    def _bins(self) -> None:
        at = 0
        while at < self.size:
            signature, offset, size = struct.unpack_from("<4sII", self.data, 4096 + at)
            assert (signature, offset, size % 4096) == (b"hbin", at, 0)
            assert size
            end, at = at + size, at + 32
            while at < end:
                (length,) = struct.unpack_from("<i", self.data, 4096 + at)
                assert abs(length) >= 8 and length % 8 == 0
                if length < 0:
                    self.cells[at] = self.data[4096 + at + 4 : 4096 + at - length]
                at += abs(length)
            assert at == end

    def _cell(self, offset: int) -> bytes:
        self.used[offset] += 1
        return self.cells[offset]

    def _key(self, offset: int, parent: int) -> Tree:
        cell = self._cell(offset)
        signature, flags, _, _, own_parent, count = struct.unpack_from("<2sHQIII", cell)
        lists, _, values, listed, security, named, longest = struct.unpack_from("<IIIIIII", cell, 28)
        longest_value, largest = struct.unpack_from("<II", cell, 60)
        length, class_length = struct.unpack_from("<HH", cell, 72)
        assert signature == b"nk"
        assert parent in (NONE, own_parent)
        self.secured[security] += 1
        if class_length:
            self._cell(named)
        names = [self._below(each, offset) for each in self._list(lists, count)] if count else []
        order = [name.upper().encode("utf-16-be") for name, _ in names]
        assert order == sorted(set(order))
        assert all(2 * len(name) <= longest & 0xFFFF for name, _ in names)
        found: Tree = {name + "\\": below for name, below in names}
        for name, data in self._values(listed, values):
            assert name.upper() not in [each.upper() for each in found]
            assert 2 * len(name) <= longest_value and len(data[1]) <= largest
            found[name] = data
        assert flags & 0x20 or length
        return found

    def _below(self, offset: int, parent: int) -> tuple[str, Tree]:
        cell = self.cells[offset]
        (length,) = struct.unpack_from("<H", cell, 72)
        encoding = "latin-1" if cell[2] & 0x20 else "utf-16-le"
        return cell[76 : 76 + length].decode(encoding), self._key(offset, parent)

    def _list(self, offset: int, count: int) -> list[int]:
        keys = self._leaf(offset, roots=True)
        assert len(keys) == count
        return keys

    def _leaf(self, offset: int, *, roots: bool) -> list[int]:
        cell = self._cell(offset)
        kind, count = struct.unpack_from("<2sH", cell)
        assert 0 < count <= LONGEST_LEAF
        if kind == b"ri":
            assert roots
            return [key for each in struct.unpack_from(f"<{count}I", cell, 4) for key in self._leaf(each, roots=False)]
        if kind == b"li":
            return list(struct.unpack_from(f"<{count}I", cell, 4))
        pairs = list(struct.iter_unpack("<I4s", cell[4 : 4 + 8 * count]))
        for key, mark in pairs:
            self._mark(kind, key, mark)
        return [key for key, _ in pairs]

    def _mark(self, kind: bytes, offset: int, mark: bytes) -> None:
        cell = self.cells[offset]
        (length,) = struct.unpack_from("<H", cell, 72)
        raw = cell[76 : 76 + length]
        name = raw.decode("latin-1" if cell[2] & 0x20 else "utf-16-le")
        if kind == b"lh":
            total = 0
            for character in name.upper():
                total = (37 * total + ord(character)) & NONE
            assert mark == struct.pack("<I", total), name
        else:
            assert kind == b"lf"
            assert mark in (name[:4].encode("latin-1", "replace").ljust(4, b"\0"), bytes(4))

    def _values(self, listed: int, count: int) -> list[tuple[str, Data]]:
        if not count:
            return []
        return [self._value(each) for each in struct.unpack_from(f"<{count}I", self._cell(listed))]

    def _value(self, offset: int) -> tuple[str, Data]:
        cell = self._cell(offset)
        signature, length, size, where, kind, flags = struct.unpack_from("<2sHIIIH", cell)
        assert signature == b"vk"
        name = cell[20 : 20 + length].decode("latin-1" if flags & 1 else "utf-16-le")
        if size & 1 << 31:
            return name, (kind, struct.pack("<I", where)[: size & 0xFF])
        if not size:
            return name, (kind, b"")
        if size <= SEGMENT or self.minor < 4:
            return name, (kind, self._cell(where)[:size])
        signature, count, pieces = struct.unpack_from("<2sHI", self._cell(where))
        assert signature == b"db"
        offsets = struct.unpack_from(f"<{count}I", self._cell(pieces))
        return name, (kind, b"".join(self._cell(each)[:SEGMENT] for each in offsets)[:size])

    def _security(self) -> None:
        """A ring, in which each descriptor knows how many keys it has."""
        start = at = next(iter(self.secured))
        ring = []
        while at not in ring:
            ring.append(at)
            signature, after, _, count = struct.unpack_from("<2s2xIII", self._cell(at))
            assert (signature, count) == (b"sk", self.secured[at])
            assert struct.unpack_from("<I", self.cells[after], 8)[0] == at
            at = after
        assert at == start
        assert set(ring) == set(self.secured)


def checked(data: bytes) -> Tree:
    """All of a sound hive. Raises AssertionError."""
    return Checked(data).tree()
