"""A disk with other bytes in some places."""

from __future__ import annotations

from pathlib import Path

from tests.support.disks import FileReader


class PatchedReader(FileReader):
    """A disk with some of its bytes changed."""

    def __init__(self, path: Path, patches: list[tuple[int, bytes]]) -> None:
        super().__init__(path)
        self._patches = patches

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(super().read(offset, length))
        for at, value in self._patches:
            if offset <= at < offset + length:
                data[at - offset : at - offset + len(value)] = value
        return bytes(data[:length])
