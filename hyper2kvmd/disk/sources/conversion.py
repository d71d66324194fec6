"""One source disk into one image file, from the very files that the migration was planned with."""

from __future__ import annotations

from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.sources.opening import open_source
from hyper2kvmd.disk.sources.source import OnProgress
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model.disks import SourceDisk


def convert(
    disk: SourceDisk, image: NewImage, *, limits: copy.Limits, on_progress: OnProgress = lambda _amounts: None
) -> None:
    """Write `image`, complete and flushed.

    A killed conversion is continued where our engine wrote it, and started over where qemu-img did. Raises
    MigrationFailed (`source-changed`), and as `open_source` and `DiskSource.copy_into` do.
    """
    with open_source(disk.path, image.path.parent) as source:
        if source.files != disk.files:
            raise MigrationFailed(
                "source-changed",
                f"{disk.path} is no longer what it was when the migration was planned",
                hint="stop whatever writes to it (is the VM still running?), then retry",
                kind=Kind.OPERATOR,
            )
        source.copy_into(image, limits, on_progress)
