"""A source's runs cut into pieces of work: small enough to be held in memory, large enough to be worth a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hyper2kvmd.disk.blocks import Run

BATCH = 2 << 20
"""Bytes that a batch holds in memory, about; a packed run larger than that is held whole."""
PIECE = 1 << 20
PIECES = 1024
JOINED = 512 << 20
"""Bytes of neighbouring runs that are looked at together."""


class Piece(NamedTuple):
    """Guest bytes inside one run and one window of the target."""

    guest: int
    length: int
    run: Run
    clone: bool
    """The bytes are to be shared, not copied: they lie block-aligned on both sides."""


@dataclass(slots=True)
class Batch:
    number: int
    window: int
    """Which window of the target all pieces are in."""
    pieces: list[Piece] = field(default_factory=list)
    loaded: int = 0
    """Bytes that pass through memory."""


@dataclass(frozen=True, slots=True)
class Cutter:
    """How to cut: `unit` and `window` are the target's, `block` the file system's, `clonable` is asked of each file."""

    unit: int
    window: int
    block: int
    clonable: Callable[[int], bool]

    def batches(self, runs: Iterable[Run], start: int) -> Iterator[Batch]:
        """All pieces at or after `start`, in guest order. No unit is in two batches."""
        batch, unit = Batch(0, -1), -1
        for piece in self._pieces(runs, start):
            first = piece.guest // self.unit
            window = piece.guest // self.window
            full = batch.loaded >= BATCH or len(batch.pieces) >= PIECES
            if window != batch.window or (full and first != unit):
                if batch.pieces:
                    yield batch
                batch = Batch(batch.number + 1 if batch.pieces else batch.number, window)
            batch.pieces.append(piece)
            batch.loaded += 0 if piece.clone else piece.length
            unit = (piece.guest + piece.length - 1) // self.unit
        if batch.pieces:
            yield batch

    def _pieces(self, runs: Iterable[Run], start: int) -> Iterator[Piece]:
        window, unit = self.window, self.unit
        for run in _joined(runs):
            guest, end = max(run.guest, start), run.guest + run.length
            if run.packed:
                while guest < end:
                    stop = min(end, guest - guest % window + window)
                    yield Piece(guest, stop - guest, run, False)
                    guest = stop
                continue
            head, tail = self._clone_bounds(run, guest, end)
            while guest < end:
                stop = min(end, guest - guest % window + window)
                clone = head <= guest < tail
                if clone:
                    stop = min(stop, tail)
                else:
                    stop = min(stop, guest - guest % unit + PIECE, head if guest < head else end)
                yield Piece(guest, stop - guest, run, clone)
                guest = stop

    def _clone_bounds(self, run: Run, guest: int, end: int) -> tuple[int, int]:
        """The part of [guest, end) that can be shared; empty at `end` where nothing can."""
        block = self.block
        if (run.guest - run.offset) % block or not self.clonable(run.file):
            return end, end
        head, tail = -(-guest // block) * block, end // block * block
        return (head, tail) if head < tail else (end, end)


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Neighbours that lie together in the file as one run."""
    held: Run | None = None
    for run in runs:
        if held is not None:
            if (
                not run.packed
                and not held.packed
                and held.length < JOINED
                and held.file == run.file
                and held.guest + held.length == run.guest
                and held.offset + held.length == run.offset
            ):
                held = Run(held.guest, held.length + run.length, held.file, held.offset)
                continue
            yield held
        held = run
    if held is not None:
        yield held
