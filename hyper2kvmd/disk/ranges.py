"""Ranges of a disk as (start, stop) in bytes, ordered and without overlap."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator

UNIT = 65536
"""Bytes. An image stores whole units of a disk: a hole inside one saves nothing."""


class Ranges:
    """Many ranges in little memory, with lookup by position."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts, self._stops = array("Q"), array("Q")
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add a range after all others; it is joined to the last if they touch."""
        if self._stops and self._stops[-1] == start:
            self._stops[-1] = stop
        else:
            self._starts.append(start)
            self._stops.append(stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._stops, strict=True)

    @property
    def length(self) -> int:
        return sum(self._stops) - sum(self._starts)

    def within(self, lo: int, hi: int) -> Iterator[tuple[int, int]]:
        """The ranges in [lo, hi), cut at both."""
        for index in range(max(0, bisect_right(self._starts, lo) - 1), len(self._starts)):
            start, stop = self._starts[index], self._stops[index]
            if start >= hi:
                return
            if stop > lo:
                yield max(start, lo), min(stop, hi)


def in_units(ranges: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of a disk of `size` bytes, widened to whole units and joined where they touch."""
    held: tuple[int, int] | None = None
    for start, stop in ranges:
        start, stop = start // UNIT * UNIT, min(size, -(-stop // UNIT) * UNIT)
        if held is not None and start <= held[1]:
            held = held[0], max(held[1], stop)
            continue
        if held is not None:
            yield held
        held = start, stop
    if held is not None:
        yield held


def cut(ranges: Iterable[tuple[int, int]], limit: int) -> Iterator[tuple[int, int]]:
    """The same ranges, cut at multiples of `limit`."""
    for start, stop in ranges:
        while start < stop:
            end = min(stop, start - start % limit + limit)
            yield start, end
            start = end
