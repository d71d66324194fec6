"""The interface of an image for the copy engine, which knows no format."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ImageFile(Protocol):
    """An unfinished image file. All offsets and lengths are bytes.

    Guest space is placed in ascending order by one thread at a time. The engine writes the data itself, to `fd`, at
    the returned offsets. `pack` is called by several threads. Space that was placed but not written reads as zeros.
    """

    path: Path
    fd: int
    virtual_size: int
    compress: bool
    unit: int
    """Space is placed in whole units: from a multiple of it to another multiple or to the end of the disk."""
    window: int
    """Space placed in one call is between two multiples of it; a multiple of `unit`."""

    @property
    def options(self) -> str:
        """Settings that determine the file's bytes, besides the source."""
        ...

    @property
    def full_size(self) -> int:
        """Length of the file after a guest has written all of its disk."""
        ...

    def begin(self) -> None:
        """Start anew; discard the file's content."""
        ...

    def resume(self, state: bytes) -> None:
        """Continue from `state`; later writes are discarded.

        Raises ValueError if that is impossible, and OSError (earlier writes may be lost).
        """
        ...

    def state(self) -> bytes:
        """The state for `resume`, valid once all placed data and all taken tables are written."""
        ...

    def place(self, guest: int, length: int) -> int:
        """The file offset for guest space in one window."""
        ...

    def place_packed(self, guest: int, size: int) -> int:
        """The file offset for the `size` bytes that `pack` made of the unit at `guest`."""
        ...

    def pack(self, cluster: bytes) -> bytes | None:
        """One unit, compressed; None if that saves too little."""
        ...

    def take_tables(self) -> list[tuple[int, bytes]]:
        """(file offset, bytes) of the tables completed since the last call, to be written like the data."""
        ...

    def finish(self) -> int:
        """After all data is written, complete the image on disk; returns the bytes written for that."""
        ...

    def close(self) -> None: ...
