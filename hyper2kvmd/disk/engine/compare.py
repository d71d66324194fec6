"""Comparison of all bytes that a guest reads from a source and from its image, in parallel.

The cost grows with the bytes that either side stores. Where neither stores any, both read as zeros.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from hyper2kvmd.disk.blocks import Buffer, Run, Source

PIECE = 1 << 20
"""Most bytes that are read at once from one side."""
BATCH = 2 << 20
"""Bytes that one thread compares before it takes its next batch."""
BATCHES_AHEAD = 4
"""For each thread; limits the memory."""


class ReadableImage(Protocol):
    """The image side of the comparison; safe to read from several threads."""

    @property
    def virtual_size(self) -> int: ...

    def allocated(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Guest ranges (start, stop) in [start, stop) that may contain anything but zeros, in order."""
        ...

    def read(self, start: int, length: int) -> bytes: ...


def first_difference(
    source: Source, image: ReadableImage, *, threads: int, on_progress: Callable[[int], None] = lambda _done: None
) -> int | None:
    """Guest offset of the first byte that differs; None if source and image are equal.

    `on_progress` gets the number of guest bytes compared. If one disk is longer, they differ where the other ends.
    Raises what `source.load` and `image.read` raise.
    """
    size = min(source.virtual_size, image.virtual_size)
    pending: deque[tuple[int, Future[int | None]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="compare") as pool:
        try:
            for stop, batch in _batches(source, size):
                pending.append((stop, pool.submit(_difference, source, image, batch)))
                while len(pending) > threads * BATCHES_AHEAD:
                    if (found := _check_oldest(pending, on_progress)) is not None:
                        return found
            while pending:
                if (found := _check_oldest(pending, on_progress)) is not None:
                    return found
        finally:
            pool.shutdown(cancel_futures=True)
    return None if source.virtual_size == image.virtual_size else size


def _check_oldest(pending: deque[tuple[int, Future[int | None]]], on_progress: Callable[[int], None]) -> int | None:
    stop, future = pending.popleft()
    found = future.result()
    if found is None:
        on_progress(stop)
    return found


def _batches(source: Source, size: int) -> Iterator[tuple[int, list[tuple[int, int] | Run]]]:
    """The disk from 0 to `size` in order, in batches: (guest offset of its end, its runs and gaps)."""
    batch: list[tuple[int, int] | Run] = []
    weight, at = 0, 0
    for run in source.runs(0, size):
        for piece in _pieces(run, size):
            if piece.guest > at:
                batch.append((at, piece.guest))
            batch.append(piece)
            at = piece.guest + piece.length
            weight += piece.length
            if weight >= BATCH:
                yield min(at, size), batch
                batch, weight = [], 0
    if at < size:
        batch.append((at, size))
    if batch:
        yield size, batch


def _pieces(run: Run, size: int) -> Iterator[Run]:
    """A packed run whole, because it cannot be split; any other in pieces up to the end of the disk."""
    if run.packed:
        yield run
        return
    for offset in range(0, min(run.length, size - run.guest), PIECE):
        length = min(PIECE, run.length - offset, size - run.guest - offset)
        yield replace(run, guest=run.guest + offset, offset=run.offset + offset, length=length)


def _difference(source: Source, image: ReadableImage, batch: list[tuple[int, int] | Run]) -> int | None:
    for part in batch:
        if isinstance(part, Run):
            length = min(part.length, image.virtual_size - part.guest)
            ours = source.load(part)
            theirs = image.read(part.guest, length)
            found = _first_unequal(ours if len(ours) == length else ours[:length], theirs)
            if found is not None:
                return part.guest + found
        else:
            found = _first_not_zero(image, *part)
            if found is not None:
                return found
    return None


def _first_not_zero(image: ReadableImage, start: int, stop: int) -> int | None:
    for begin, end in image.allocated(start, stop):
        for offset in range(begin, end, PIECE):
            length = min(PIECE, end - offset)
            found = _first_unequal(bytes(length), image.read(offset, length))
            if found is not None:
                return offset + found
    return None


def _first_unequal(ours: Buffer, theirs: Buffer) -> int | None:
    """The first position where two blocks differ; a shorter block differs at its end."""
    if ours == theirs:
        return None
    low, high = 0, min(len(ours), len(theirs))
    while low < high:  # everything before `low` is equal, and a difference is before `high` or at the end
        middle = (low + high) // 2
        if ours[low : middle + 1] == theirs[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
