"""The changed blocks of a volume: checked, and written to it.

Nothing is written before the process that made them has ended. `disk/qemu/overlays.py` makes the changes of all volumes
of a guest one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyper2kvmd.volumes.fat import Blocks
from hyper2kvmd.volumes.ntfs.tool import faulty

BLOCK = 4096
PIECE = 1 << 20
RUNS_LIMIT = 100_000
REPEATED_LIMIT = 4 << 30
"""Bytes of runs with one repeated byte. The log, which has at most 4 GiB, is emptied with such runs."""


@dataclass(frozen=True)
class ChangedRun:
    """`length` new bytes at `offset`: `data`, or its one byte repeated."""

    offset: int
    length: int
    data: bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Offsets and bytes of at most PIECE each."""
        for at in range(0, self.length, PIECE):
            count = min(PIECE, self.length - at)
            whole = self.data * count if self.is_repeated else self.data[at : at + count]
            yield self.offset + at, whole

    @property
    def is_repeated(self) -> bool:
        return len(self.data) == 1 != self.length


@dataclass(frozen=True)
class VolumeChanges:
    """What turns a volume into the changed one, in order."""

    runs: tuple[ChangedRun, ...]

    def write(self, blocks: Blocks) -> None:
        """Raises MigrationFailed (`image-write-failed`)."""
        for run in self.runs:
            for offset, data in run.pieces():
                blocks.write(offset, data)


def changes_of(blocks: Blocks, runs: Sequence[object], data: bytes) -> VolumeChanges:
    """The changes from an answer of the process; blocks that have not changed are left out.

    Raises MigrationFailed (`ntfs-tool-faulty`) for runs that are not inside the volume, or not in order.
    """
    kept: list[ChangedRun] = []
    for run in _checked(blocks.size, runs, data):
        for offset, new in run.pieces():
            old = blocks.read(offset, len(new))
            kept += [_compact(offset + start, new[start:end]) for start, end in _differences(old, new)]
    return VolumeChanges(tuple(kept))


def _compact(offset: int, data: bytes) -> ChangedRun:
    repeated = data == data[:1] * len(data)
    return ChangedRun(offset, len(data), data[:1] if repeated else data)


def _differences(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Ranges of blocks that differ."""
    start = None
    for at in range(0, len(new), BLOCK):
        if old[at : at + BLOCK] != new[at : at + BLOCK]:
            start = at if start is None else start
        elif start is not None:
            yield start, at
            start = None
    if start is not None:
        yield start, len(new)


def _checked(size: int, runs: Sequence[object], data: bytes) -> Iterator[ChangedRun]:
    if len(runs) > RUNS_LIMIT:
        raise faulty("its changes have too many parts")
    at = used = repeated = 0
    for run in runs:
        if not isinstance(run, list) or len(run) != 3 or any(type(number) is not int for number in run):
            raise faulty("its changes are not understood")
        offset, length, byte = run
        if offset < at or length <= 0 or offset + length > size or offset % BLOCK or not -1 <= byte <= 255:
            raise faulty(f"it changes {length} bytes at {offset}")
        at = offset + length
        if byte >= 0:
            repeated += length
            yield ChangedRun(offset, length, bytes((byte,)))
        else:
            yield ChangedRun(offset, length, data[used : used + length])
            used += length
        if repeated > REPEATED_LIMIT or used > len(data):
            raise faulty("its changes have a wrong size")
    if used != len(data):
        raise faulty("its changes have a wrong size")
