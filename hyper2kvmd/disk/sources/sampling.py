"""An estimate, from samples, of how much of a disk's stored data is not zeros.

Formats with large blocks also store the zeros around a few bytes of data, and a copy of a sparse file stores all zeros;
an image stores none. Its exact size would need a read of the whole disk.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator

from hyper2kvmd.disk.ranges import UNIT, Ranges

SAMPLES = 8192
"""Units to read, one from each of as many equal shares of the stored data. Up to this number, all are read."""
CONFIDENCE = 1.0
"""Standard errors to add: a little too much space is better than too little."""


def content_bytes(stored: Ranges, read: Callable[[int, int], bytes]) -> int:
    """Estimated bytes of `stored` (whole units) that an image has to keep; `read` returns the bytes of a range."""
    units = -(-stored.length // UNIT)
    if units <= SAMPLES:
        return sum(stop - start for start, stop in _units(stored, range(units)) if _holds_any(read(start, stop)))
    pick = random.SystemRandom()  # a disk may be made to have only zeros in predictable places
    shares = [units * number // SAMPLES for number in range(SAMPLES + 1)]
    chosen = [pick.randrange(low, high) for low, high in itertools.pairwise(shares)]
    share = sum(_holds_any(read(start, stop)) for start, stop in _units(stored, chosen)) / SAMPLES
    error = math.sqrt(share * (1 - share) / SAMPLES)
    return int(stored.length * min(1.0, share + CONFIDENCE * error))


def upper_bound(estimate: int, stored: int) -> int:
    """The most bytes to expect where `content_bytes` returned `estimate`: six standard errors more."""
    share = max(estimate / max(stored, 1), 1 / SAMPLES)
    return int(estimate + 6 * math.sqrt(share / SAMPLES) * stored)


def _holds_any(data: bytes) -> bool:
    return data != bytes(len(data))


def _units(stored: Ranges, numbers: range | list[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) of the units with these ascending numbers, counted through the stored data."""
    wanted, first = iter(numbers), 0
    number = next(wanted, None)
    for start, stop in stored:
        held = -(-(stop - start) // UNIT)
        while number is not None and number < first + held:
            begin = start + (number - first) * UNIT
            yield begin, min(stop, begin + UNIT)
            number = next(wanted, None)
        first += held
