"""The lists of a key's subkeys: hash leaves (lh), fast leaves (lf), index leaves (li), and roots of several (ri)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.guest.windows.registry.cells import Cells
from hyper2kvmd.guest.windows.registry.names import name_hash, upcase
from hyper2kvmd.guest.windows.registry.records import KeyRecord, read_key

HEADER = struct.Struct("<2sH")
HASHES, HINTS, PLAIN, ROOT = b"lh", b"lf", b"li", b"ri"
KEYS_OF_ONE_CELL = 16
"""So many elements of a list take as long to read as another cell."""
NUMBERS = {HASHES: 2, HINTS: 2, PLAIN: 1}
"""32-bit numbers of one element: the offset of a key and, before it is read, something about its name."""


@dataclass(frozen=True)
class Leaf:
    offset: int
    kind: bytes
    keys: tuple[int, ...]
    """Offsets, in the order of their names."""
    marks: tuple[int, ...]
    """The hash or hint of each name; none in an index leaf."""


def read_leaves(cells: Cells, key: KeyRecord) -> Iterator[Leaf]:
    if not key.subkeys:
        return
    for offset in leaf_offsets(cells, key):
        yield read_leaf(cells, offset)


def leaf_offsets(cells: Cells, key: KeyRecord) -> tuple[int, ...]:
    kind, count, at = _header(cells, key.lists)
    if kind != ROOT:
        return (key.lists,)
    return struct.unpack_from(f"<{count}I", cells.data, at + HEADER.size)


def has_root(cells: Cells, key: KeyRecord) -> bool:
    return bool(key.subkeys) and _header(cells, key.lists)[0] == ROOT


def read_leaf(cells: Cells, offset: int) -> Leaf:
    kind, count, at = _header(cells, offset)
    if kind not in NUMBERS:
        raise cells.damaged(f"the cell at offset {offset} is no list of subkeys")
    cells.work(count // KEYS_OF_ONE_CELL)  # a root can list the same leaf many times
    numbers = struct.unpack_from(f"<{count * NUMBERS[kind]}I", cells.data, at + HEADER.size)
    if kind == PLAIN:
        return Leaf(offset, kind, numbers, ())
    return Leaf(offset, kind, numbers[::2], numbers[1::2])


def _header(cells: Cells, offset: int) -> tuple[bytes, int, int]:
    """The kind of a list, the number of its elements, and where it is in the data."""
    at = cells.at(offset, HEADER.size)
    kind, count = HEADER.unpack_from(cells.data, at)
    cells.at(offset, HEADER.size + 4 * count * NUMBERS.get(kind, 1))
    return kind, count, at


def find_subkey(cells: Cells, key: KeyRecord, name: str) -> KeyRecord | None:
    """The subkey of that name in any case. As in Windows, hashes decide which names are compared."""
    wanted, by_hash = upcase(name), name_hash(name) if name.isascii() else None
    for leaf in read_leaves(cells, key):
        for offset in _candidates(leaf, by_hash):
            found = read_key(cells, offset)
            if upcase(found.name) == wanted:
                return found
    return None


def _candidates(leaf: Leaf, by_hash: int | None) -> Iterator[int]:
    if leaf.kind != HASHES or by_hash is None:
        yield from leaf.keys
    else:
        yield from (offset for offset, mark in zip(leaf.keys, leaf.marks, strict=True) if mark == by_hash)
