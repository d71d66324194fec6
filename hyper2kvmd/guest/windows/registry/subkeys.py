"""Edits of the lists of a key's subkeys. They stay sorted, keep their kind, and are split before they are too long."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from hyper2kvmd.guest.windows.registry.cells import NONE, Cells
from hyper2kvmd.guest.windows.registry.editable_cells import EditableCells
from hyper2kvmd.guest.windows.registry.lists import (
    HASHES,
    HEADER,
    HINTS,
    ROOT,
    Leaf,
    has_root,
    leaf_offsets,
    read_leaf,
)
from hyper2kvmd.guest.windows.registry.names import name_hash, name_hint, sort_key
from hyper2kvmd.guest.windows.registry.records import KeyRecord, read_key

LONGEST_LEAF = 507
"""Elements of a hash leaf that fills a bin of 4096 bytes."""
HASHES_SINCE = 5
"""The version of the format that has hash leaves."""
SUBKEYS_AT, LISTS_AT = 20, 28
"""In the record of a key."""


def insert_subkey(cells: EditableCells, key: KeyRecord, offset: int, name: str, minor: int) -> None:
    """Add the key at `offset`, whose name is in no list of `key` yet."""
    kind = HASHES if minor >= HASHES_SINCE else HINTS
    offsets = list(leaf_offsets(cells, key)) if key.subkeys else []
    rooted = has_root(cells, key)
    index = _leaf_for(cells, offsets, name)
    leaf = read_leaf(cells, offsets[index]) if offsets else Leaf(NONE, kind, (), ())
    at = _position(cells, leaf.keys, name)
    marks = (*leaf.marks[:at], _mark(leaf.kind, name), *leaf.marks[at:]) if leaf.kind in (HASHES, HINTS) else ()
    grown = Leaf(leaf.offset, leaf.kind, (*leaf.keys[:at], offset, *leaf.keys[at:]), marks)
    offsets[index : index + 1] = _written(cells, grown)
    _write_lists(cells, key, offsets, rooted=rooted)
    cells.put("<I", key.offset, SUBKEYS_AT, key.subkeys + 1)


def remove_subkey(cells: EditableCells, key: KeyRecord, offset: int) -> None:
    """Take the key at `offset` out of the lists of `key`."""
    offsets = list(leaf_offsets(cells, key))
    rooted = has_root(cells, key)
    for index, leaf in enumerate(read_leaf(cells, each) for each in offsets):
        if offset in leaf.keys:
            at = leaf.keys.index(offset)
            marks = leaf.marks[:at] + leaf.marks[at + 1 :]
            rest = Leaf(leaf.offset, leaf.kind, leaf.keys[:at] + leaf.keys[at + 1 :], marks)
            offsets[index : index + 1] = _written(cells, rest)
            break
    _write_lists(cells, key, offsets, rooted=rooted)
    cells.put("<I", key.offset, SUBKEYS_AT, key.subkeys - 1)


def free_lists(cells: EditableCells, key: KeyRecord) -> None:
    """Free the lists of a key that is deleted."""
    if not key.subkeys:
        return
    rooted = has_root(cells, key)
    for offset in leaf_offsets(cells, key):
        cells.free(offset)
    if rooted:
        cells.free(key.lists)


def _leaf_for(cells: Cells, offsets: Sequence[int], name: str) -> int:
    """The index of the leaf that a name belongs to: the last one that begins before it."""
    wanted, found = sort_key(name), 0
    for index, offset in enumerate(offsets):
        keys = read_leaf(cells, offset).keys
        if keys and sort_key(read_key(cells, keys[0]).name) < wanted:
            found = index
    return found


def _position(cells: Cells, keys: Sequence[int], name: str) -> int:
    wanted, low, high = sort_key(name), 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if sort_key(read_key(cells, keys[middle]).name) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def _mark(kind: bytes, name: str) -> int:
    return name_hash(name) if kind == HASHES else name_hint(name)


def _written(cells: EditableCells, leaf: Leaf) -> list[int]:
    """The offsets of new cells for a leaf that has changed, of which there is none for an empty leaf."""
    if leaf.offset != NONE:
        cells.free(leaf.offset)
    count = len(leaf.keys)
    if count <= LONGEST_LEAF:
        cuts = [0, count] if count else [0]
    else:
        pieces = -(-count // LONGEST_LEAF)
        cuts = [count * piece // pieces for piece in range(pieces + 1)]
    return [cells.allocate(_packed(leaf, start, stop)) for start, stop in pairwise(cuts)]


def _packed(leaf: Leaf, start: int, stop: int) -> bytes:
    numbers: Sequence[int] = leaf.keys[start:stop]
    if leaf.marks:
        numbers = [each for pair in zip(numbers, leaf.marks[start:stop], strict=True) for each in pair]
    return HEADER.pack(leaf.kind, stop - start) + struct.pack(f"<{len(numbers)}I", *numbers)


def _write_lists(cells: EditableCells, key: KeyRecord, offsets: Sequence[int], *, rooted: bool) -> None:
    if rooted:
        cells.free(key.lists)
    if len(offsets) > 1:
        packed = HEADER.pack(ROOT, len(offsets)) + struct.pack(f"<{len(offsets)}I", *offsets)
        lists = cells.allocate(packed)
    else:
        lists = offsets[0] if offsets else NONE
    cells.put("<I", key.offset, LISTS_AT, lists)
