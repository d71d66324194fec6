"""One source disk into one image file, from the very files that the migration was planned with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.files import require_unchanged, source_changed
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.sources.opening import open_source
from hyper2kvmd.disk.sources.source import DiskSource, OnProgress
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.model.disks import SourceDisk


def convert(
    disk: SourceDisk,
    image: NewImage,
    *,
    mandate: Mandate = ANYONE,
    limits: copy.Limits,
    on_progress: OnProgress = lambda _amounts: None,
) -> None:
    """Write `image`, complete and flushed.

    A killed conversion is continued where our engine wrote it, and started over where qemu-img did. Raises as
    `open_planned` and `DiskSource.copy_into` do.
    """
    with open_planned(disk, image.path.parent, mandate) as source:
        source.copy_into(image, limits, on_progress)


@contextmanager
def open_planned(disk: SourceDisk, folder: Path, mandate: Mandate) -> Iterator[DiskSource]:
    """The disk as it was planned, and on the same rights. A socket of QEMU's may be made in `folder`.

    Raises MigrationFailed (`source-changed`) before anything of another file is read, and as `open_source` does.
    """
    require_unchanged(disk.files, mandate)
    with open_source(disk.path, folder, mandate) as source:
        if source.files != disk.files:
            raise source_changed(disk.path)
        yield source
