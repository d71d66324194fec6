"""Images by format: the image to write, its size, and its writer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk.image_file import ImageFile
from hyper2kvmd.disk.images import qcow2
from hyper2kvmd.disk.images.raw import RawWriter

ImageFormat = Literal["qcow2", "raw"]


@dataclass(frozen=True)
class NewImage:
    """An image file to write."""

    path: Path
    format: ImageFormat
    data_bytes: int
    """Planned number of guest bytes to copy, for the progress."""
    compress: bool = False
    level: int | None = None
    """Of the compression, 1 to 9; None: the writer's own."""
    reserve: bool = False
    """Reserve the full size on the file system."""

    def create(self, virtual_size: int) -> ImageFile:
        """The new image of a disk of that size, empty; the caller closes it."""
        if self.format == "raw":
            return RawWriter(self.path, virtual_size)
        level = self.level or qcow2.COMPRESSION_LEVEL
        return qcow2.Qcow2Writer(self.path, virtual_size, compress=self.compress, level=level)


def image_bytes(virtual_size: int, data_bytes: int | None, image_format: ImageFormat) -> int:
    """Bytes that an uncompressed image with that much data occupies; with None, the whole disk is data."""
    if image_format == "raw":
        return virtual_size if data_bytes is None else data_bytes
    return qcow2.full_size(virtual_size, data_bytes)
