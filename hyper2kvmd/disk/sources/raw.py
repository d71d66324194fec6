"""A raw disk as a source of the copy engine: its bytes unchanged, without the holes in its file."""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.disk import faults, ranges
from hyper2kvmd.disk.blocks import RUN_LIMIT, Run
from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.sources.source import FileBacked, OnProgress, copy_by_engine
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import SourceFormat

SECTOR = 512


class RawSource(FileBacked):
    """A `DiskSource` on an open file. Raises MigrationFailed (`source-truncated`) for a partial sector."""

    format: SourceFormat = "raw"
    subformat = "flat"

    def __init__(self, file: SourceFile, concerns: tuple[Concern, ...] = ()) -> None:
        if file.size == 0 or file.size % SECTOR:
            raise faults.truncated(file.path, f"it has {file.size} bytes, not a whole number of {SECTOR}-byte sectors")
        faults.check_disk_size(file.path, file.size)
        self._file = file
        self.virtual_size = file.size
        self.files = (file,)
        self.concerns = concerns
        self.data_bytes = sum(stop - start for start, stop in self._stored(0, file.size))

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that begin in [start, stop), in guest order. Raises MigrationFailed (`disk-read-failed`)."""
        lo = start // RUN_LIMIT * RUN_LIMIT
        for begin, end in ranges.cut(self._stored(lo, stop), RUN_LIMIT):
            if start <= begin < stop:
                yield Run(begin, end - begin, self._file.fd, self._file.first + begin)

    def copy_into(self, image: NewImage, limits: copy.CopyLimits, on_progress: OnProgress) -> None:
        """Raises as `copy.copy` does."""
        copy_by_engine(self, image, limits, on_progress)

    def load(self, run: Run) -> bytes:
        """Raises MigrationFailed (`source-truncated`, `disk-read-failed`)."""
        return self._file.read_whole(run.offset - self._file.first, run.length)

    def _stored(self, lo: int, hi: int) -> Iterator[tuple[int, int]]:
        """Data in the windows of RUN_LIMIT that [lo, hi) touches; `lo` is the start of one."""
        hi = min(self.virtual_size, -(-hi // RUN_LIMIT) * RUN_LIMIT)
        return ranges.in_units(self._file.data_ranges(lo, hi), self.virtual_size)
