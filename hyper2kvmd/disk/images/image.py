"""Images by the name of their format: what is to be written, how large it becomes, and the target that writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk.image_file import ImageFile
from hyper2kvmd.disk.images import qcow2
from hyper2kvmd.disk.images.raw import RawTarget

ImageFormat = Literal["qcow2", "raw"]


@dataclass(frozen=True)
class NewImage:
    """An image file that is to be written."""

    path: Path
    format: ImageFormat
    data_bytes: int
    """Guest bytes that there are to copy, as planned: the measure of progress."""
    compress: bool = False
    reserve: bool = False
    """Reserve the full size on the file system."""

    def target(self, virtual_size: int) -> ImageFile:
        """The engine's target for a disk of so many bytes. Close it."""
        if self.format == "raw":
            return RawTarget(self.path, virtual_size)
        return qcow2.Qcow2Writer(self.path, virtual_size, compress=self.compress)


def image_bytes(virtual_size: int, data_bytes: int | None, target_format: ImageFormat) -> int:
    """What an uncompressed image of a disk with so much data occupies; of all of the disk when that is None."""
    if target_format == "raw":
        return virtual_size if data_bytes is None else data_bytes
    return qcow2.full_size(virtual_size, data_bytes)
