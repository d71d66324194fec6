"""The interface of a source for the copy engine, which knows no format.

All offsets and lengths are bytes. Guest offsets count from the start of the virtual disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview
RUN_LIMIT = 8 << 20
"""Bytes. No run crosses a multiple of this, so all readings of a disk cut it in the same places."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive guest bytes that are stored together.

    With `packed`, the run is one unit that only `Source.load` can read (a compressed grain). Otherwise its bytes are
    stored unchanged at `offset` of the file descriptor `file`, counted from the start of that file also for a disk in
    an archive, and can be copied directly.
    """

    guest: int
    length: int
    file: int
    offset: int
    packed: bool = False
    sharable: bool = True
    """Whether an image may share its blocks: False if much of it may be zeros, which an image does not keep."""


class Source(Protocol):
    """A disk to read. Bytes that no run covers are zeros."""

    @property
    def virtual_size(self) -> int: ...

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that begin in [start, stop), in guest order, without overlap. Tables are read as needed."""
        ...

    def load(self, run: Run) -> Buffer:
        """Exactly `run.length` bytes, checked as far as the format allows. Safe to call from several threads."""
        ...


class Counted(Source, Protocol):
    """A source whose tables show the amount of data beforehand."""

    @property
    def data_bytes(self) -> int:
        """Exact number of guest bytes that all runs cover."""
        ...
