"""A disk of zeros, which no file has: a description can name a disk that was never written to."""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.disk.blocks import Run
from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.sources.source import FileBacked, OnProgress, copy_by_engine
from hyper2kvmd.model.disks import SourceFormat


class EmptySource(FileBacked):
    """A `DiskSource` without a run."""

    format: SourceFormat = "raw"
    subformat = "empty"
    data_bytes = 0
    qemu_node = None
    """It has no file that QEMU could open."""

    def __init__(self, size: int) -> None:
        self.virtual_size = size
        self.files: tuple[SourceFile, ...] = ()

    def runs(self, _start: int, _stop: int) -> Iterator[Run]:
        return iter(())

    def copy_into(self, image: NewImage, limits: copy.CopyLimits, on_progress: OnProgress) -> None:
        """Raises as `copy.copy` does."""
        copy_by_engine(self, image, limits, on_progress)

    def load(self, run: Run) -> bytes:
        """It has no run to load."""
        raise ValueError(run)
