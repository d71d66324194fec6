"""Hives as Windows leaves them when it loses its power: changes in the transaction logs that the hive lacks.

Source: Windows registry file format specification, M. Suhanov: format of transaction log files.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.support.hives import differing_pages, entry, log, marked

PAGE, SECTOR = 4096, 512
OLD_LOG = 1


@dataclass(frozen=True)
class DirtyHive:
    primary: bytes
    log1: bytes
    log2: bytes


def dirty(states: Sequence[bytes]) -> DirtyHive:
    """The first of `states` as the hive, and a log entry for every step to the last. LOG2 continues LOG1."""
    (first,) = struct.unpack_from("<I", states[0], 4)
    entries = [
        entry(first + number, len(after) - PAGE, differing_pages(before, after))
        for number, (before, after) in enumerate(pairwise(states))
    ]
    half = (len(entries) + 1) // 2
    log2 = log(states[0], first + half, entries[half:]) if entries[half:] else b""
    return DirtyHive(marked(states[0], first + 1, first), log(states[0], first, entries[:half]), log2)


def dirty_as_windows_7(before: bytes, after: bytes) -> DirtyHive:
    """One old log, with the sectors that changed and a bit for each."""
    (number,) = struct.unpack_from("<I", before, 4)
    bits, sectors = bytearray(((len(after) - PAGE) // SECTOR + 7) // 8), []
    for at in range(PAGE, len(after), SECTOR):
        if before[at : at + SECTOR] != after[at : at + SECTOR]:
            bit = (at - PAGE) // SECTOR
            bits[bit // 8] |= 1 << bit % 8
            sectors.append(after[at : at + SECTOR])
    vector = b"DIRT" + bits
    vector += bytes(-len(vector) % SECTOR)
    return DirtyHive(marked(before, number + 1, number), log(after, number + 1, (vector, *sectors), OLD_LOG), b"")
