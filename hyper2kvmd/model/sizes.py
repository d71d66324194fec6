"""Sizes as people write them: a plain number, or one with the unit K, M, G or T (powers of 1024)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, TypeAlias

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = r"(0|[1-9][0-9]{0,17})([KMGT]?)"
"""A pattern for a whole size, with groups for its number and its unit."""
LARGEST = 10**18 - 1
"""A number fits into 64 bits, with or without a unit."""
_SIZE = re.compile(SIZE)


@dataclass(frozen=True)
class CountedIn:
    """Marks a field of whole numbers as a size; `unit` is the number of bytes that a plain number counts in."""

    unit: int

    def read(self, text: str) -> int | None:
        """The number in this unit; None if `text` is no size, not a multiple of the unit, or larger than LARGEST."""
        found = _SIZE.fullmatch(text)
        if found is None:
            return None
        amount, unit = int(found[1]), found[2]
        if not unit:
            return amount
        whole, rest = divmod(amount * UNITS[unit], self.unit)
        return None if rest or whole > LARGEST else whole


BYTES, MEBIBYTES = CountedIn(1), CountedIn(1 << 20)
Bytes: TypeAlias = Annotated[int, BYTES]
Mebibytes: TypeAlias = Annotated[int, MEBIBYTES]
