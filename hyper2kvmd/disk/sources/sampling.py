"""How much of what a disk stores is anything but zeros, told from samples.

Formats with large blocks store the zeros around a few bytes of data too, and a copy of a sparse file stores all of
them; an image keeps none. To know how large it will be, all of the disk would have to be read; this reads a little.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator

from hyper2kvmd.disk.ranges import UNIT, Ranges

SAMPLES = 8192
"""Units, one of each of so many equal shares of what is stored. With no more units than that, all are read."""
CONFIDENCE = 1.0
"""Standard errors that are added: rather a little too much space than too little."""


def content_bytes(stored: Ranges, read: Callable[[int, int], bytes]) -> int:
    """About how many bytes of `stored`, which are whole units, an image has to keep; `read` gives those of a range."""
    units = -(-stored.length // UNIT)
    if units <= SAMPLES:
        return sum(stop - start for start, stop in _units(stored, range(units)) if _holds_any(read(start, stop)))
    pick = random.SystemRandom()  # a disk may be made to hold nothing in places that are known beforehand
    shares = [units * number // SAMPLES for number in range(SAMPLES + 1)]
    chosen = [pick.randrange(low, high) for low, high in itertools.pairwise(shares)]
    share = sum(_holds_any(read(start, stop)) for start, stop in _units(stored, chosen)) / SAMPLES
    error = math.sqrt(share * (1 - share) / SAMPLES)
    return int(stored.length * min(1.0, share + CONFIDENCE * error))


def upper_bound(estimate: int, stored: int) -> int:
    """The most bytes that there can be where `content_bytes` said `estimate`: six standard errors more."""
    share = max(estimate / max(stored, 1), 1 / SAMPLES)
    return int(estimate + 6 * math.sqrt(share / SAMPLES) * stored)


def _holds_any(data: bytes) -> bool:
    return data != bytes(len(data))


def _units(stored: Ranges, numbers: range | list[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) of the units of those numbers, which ascend, counted through what is stored."""
    wanted, first = iter(numbers), 0
    number = next(wanted, None)
    for start, stop in stored:
        held = -(-(stop - start) // UNIT)
        while number is not None and number < first + held:
            begin = start + (number - first) * UNIT
            yield begin, min(stop, begin + UNIT)
            number = next(wanted, None)
        first += held
