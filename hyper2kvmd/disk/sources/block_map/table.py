"""The entries of a block table, read in chunks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

from hyper2kvmd.disk.files import SourceFile

CHUNK = 1 << 20
"""Bytes of the table that are read at once; a multiple of every entry's size."""


def entries(
    file: SourceFile, table: int, first: int, stop: int, *, code: Literal["<I", ">I", "<Q"], absent: bytes
) -> Iterator[tuple[int, int]]:
    """(number, value) of the entries from `first` to `stop` of the table at byte `table`.

    Chunks in which all bytes are `absent` are left out: thin disks of many TiB have long tables of nothing else.
    Raises MigrationFailed (`source-truncated`).
    """
    width = struct.calcsize(code)
    for at in range(first * width, stop * width, CHUNK):
        data = file.read_whole(table + at, min(CHUNK, stop * width - at))
        if data.count(absent) < len(data):
            yield from enumerate((entry for (entry,) in struct.iter_unpack(code, data)), at // width)
