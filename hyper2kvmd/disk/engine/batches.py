"""A source's runs, cut into batches: small enough for memory, large enough to be worth a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hyper2kvmd.disk.blocks import Run

BATCH = 4 << 20
"""Approximate bytes of a batch in memory; a larger packed run is held whole."""
PIECE = 1 << 20
PIECES = 1024
JOINED = 512 << 20
"""Bytes up to which adjacent runs are joined."""


class Piece(NamedTuple):
    """Guest bytes inside one run and one window of the image."""

    guest: int
    length: int
    run: Run
    clone: bool
    """The bytes are shared, not copied: they are block-aligned on both sides."""


@dataclass(slots=True)
class CopyBatch:
    """Pieces in one window of the image. No unit is in two batches, so a copy can resume between any two."""

    number: int
    pieces: list[Piece] = field(default_factory=list)
    length: int = 0
    """Guest bytes."""
    loaded: int = 0
    """Of these, the bytes read into memory."""

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.length += piece.length
        self.loaded += 0 if piece.clone else piece.length

    @property
    def full(self) -> bool:
        return self.loaded >= BATCH or len(self.pieces) >= PIECES

    @property
    def end(self) -> tuple[int, int]:
        """Where the next batch may begin, and the start of its first run: one across that position, or one after it."""
        last = self.pieces[-1]
        position = last.guest + last.length
        return position, last.run.guest if last.run.guest + last.run.length > position else position


@dataclass(frozen=True, slots=True)
class Cutter:
    """The rules for cutting. `unit` and `window` are the image's, `block` the file system's; `clonable` is by file."""

    unit: int
    window: int
    block: int
    clonable: Callable[[int], bool]

    def batches(self, runs: Iterable[Run], start: int) -> Iterator[CopyBatch]:
        """All pieces at or after `start`, in guest order."""
        batch, window, stop = CopyBatch(0), -1, 0
        for piece in self._pieces(runs, start):
            rest = piece
            if batch.full and piece.guest < stop:
                head = min(piece.length, stop - piece.guest)
                batch.add(piece._replace(length=head))
                if head == piece.length:
                    continue
                rest = piece._replace(guest=stop, length=piece.length - head)
            if batch.pieces and (batch.full or rest.guest // self.window != window):
                yield batch
                batch = CopyBatch(batch.number + 1)
            batch.add(rest)
            window = rest.guest // self.window
            stop = _ceil(rest.guest + rest.length, self.unit)
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
        """The part of [guest, end) that can be shared; empty, at `end`, if none can."""
        block = self.block
        if not run.sharable or (run.guest - run.offset) % block or not self.clonable(run.file):
            return end, end
        head, tail = _ceil(guest, block), end // block * block
        return (head, tail) if head < tail else (end, end)


def _ceil(offset: int, step: int) -> int:
    return -(-offset // step) * step


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Runs, with those that are adjacent in the file joined."""
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
                held = replace(held, length=held.length + run.length)
                continue
            yield held
        held = run
    if held is not None:
        yield held
