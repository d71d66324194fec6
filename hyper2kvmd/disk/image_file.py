"""What the copy engine needs of a file it writes; it knows no format."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ImageFile(Protocol):
    """An image file in the making. All offsets and lengths are bytes.

    Guest space is placed in ascending order by one thread at a time; the engine writes the data itself, to `fd`, at
    the offsets it is told. `pack` is called by several threads. What is placed but not written reads as zeros.
    """

    path: Path
    fd: int
    virtual_size: int
    compress: bool
    unit: int
    """What is placed is whole units, from a multiple of it to a multiple of it or to the end of the disk."""
    window: int
    """What is placed at once lies between two multiples of it; a multiple of `unit`."""

    @property
    def options(self) -> str:
        """What, besides the source, decides the bytes of the file."""
        ...

    @property
    def full_size(self) -> int:
        """Length of the file when a guest has written all of its disk."""
        ...

    def begin(self) -> None:
        """Start afresh, whatever the file holds."""
        ...

    def resume(self, state: bytes) -> None:
        """Go on from `state`; what was written after it counts for nothing.

        Raises ValueError where that cannot be, and OSError (what was written before is lost, perhaps).
        """
        ...

    def state(self) -> bytes:
        """What `resume` needs, once all that was placed and all `take_tables` gave is written."""
        ...

    def place(self, guest: int, length: int) -> int:
        """The file offset for guest space in one window."""
        ...

    def place_packed(self, guest: int, size: int) -> int:
        """The file offset for the `size` bytes that `pack` made of the unit at `guest`."""
        ...

    def pack(self, cluster: bytes) -> bytes | None:
        """One unit compressed; None where that does not pay."""
        ...

    def take_tables(self) -> list[tuple[int, bytes]]:
        """(file offset, bytes) of what became complete since this was asked last: to be written like the data."""
        ...

    def finish(self) -> int:
        """All data is written: make the file a complete image, on disk. The bytes written for that."""
        ...

    def close(self) -> None: ...
