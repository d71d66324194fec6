"""Reads of any byte range of a source, for parsers of partition tables and superblocks."""

from __future__ import annotations

from hyper2kvmd.disk.blocks import RUN_LIMIT, Buffer, Run, Source
from hyper2kvmd.errors import MigrationFailed


class SourceReader:
    """A `superblock.BlockReader` on an open source, for one thread."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size = source.virtual_size
        self._last: tuple[Run, Buffer] | None = None
        """The packed run read last: neighbouring structures share it."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises MigrationFailed (`disk-range`), and as the source does."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise MigrationFailed(
                "disk-range",
                f"{length} bytes at {offset} are not inside a disk of {self.size} bytes",
                hint="Export the disk again: its own tables are damaged or truncated",
            )
        data, stop = bytearray(length), offset + length
        for run in self._source.runs(offset // RUN_LIMIT * RUN_LIMIT, stop):
            begin, end = max(offset, run.guest), min(stop, run.guest + run.length)
            if begin < end:
                data[begin - offset : end - offset] = self._part(run, begin, end)
        return bytes(data)

    def _part(self, run: Run, begin: int, end: int) -> Buffer:
        if not run.packed:
            return self._source.load(Run(begin, end - begin, run.file, run.offset + begin - run.guest))
        if self._last is None or self._last[0] != run:
            self._last = run, self._source.load(run)
        return self._last[1][begin - run.guest : end - run.guest]
