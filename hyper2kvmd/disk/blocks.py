"""What the copy engine needs of a source and of a target; it knows no format.

All offsets and lengths are bytes. Guest offsets count from the start of the virtual disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview
RUN_LIMIT = 8 << 20
"""Bytes. No run of a source crosses a multiple of this, so any two readings of a disk cut it in the same places."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive guest bytes that are stored together.

    With `packed` the run is one unit that only `Source.load` can read (a compressed grain); otherwise its bytes lie
    as they are at `offset` of the file descriptor `file`, and may be copied without passing through here.
    """

    guest: int
    length: int
    file: int
    offset: int
    packed: bool = False


class Source(Protocol):
    """A disk to read. What no run covers reads as zeros."""

    @property
    def virtual_size(self) -> int: ...

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that begin in [start, stop), in guest order, without overlap. Tables are read as needed."""
        ...

    def load(self, run: Run) -> Buffer:
        """Exactly `run.length` bytes, checked as far as the format can. Safe to call from several threads."""
        ...


class Counted(Source, Protocol):
    """A source whose tables say beforehand how much there is."""

    @property
    def data_bytes(self) -> int:
        """Guest bytes that all runs together cover, exactly."""
        ...
