"""Disks as they are while a guest runs: what it wrote last is in a journal, and not yet in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hyper2kvmd.model.disks import Image
from tests.support.host import looped, moved

WRITTEN = "etc/written"


def copied_in_use(image: Image, path: Path, write: Callable[[Path], Path] | None = None) -> Image:
    """A copy at `path` of the image's disk, made while its first volume is mounted and `write` has just written a file
    there.
    """
    with looped(image.disks[0].path, image.layout.volumes[0].segments[0]) as root:
        written = (write or _write)(root)
        handle = os.open(written, os.O_RDWR)
        os.fsync(handle)
        os.close(handle)
        shutil.copyfile(image.disks[0].path, path)
    return moved(image, path)


def _write(root: Path) -> Path:
    (root / WRITTEN).write_text("by the guest\n")
    return root / WRITTEN
