"""File systems of a test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.support.disks import empty_disk, loop, sh


@contextlib.contextmanager
def file_system(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Another file system, mounted below `folder`."""
    disk, place = empty_disk(folder / f"fs{mebibytes}.raw", mebibytes), folder / f"fs{mebibytes}"
    sh("mkfs.ext4", "-q", disk)
    place.mkdir()
    with loop(disk) as device:
        sh("mount", device, place)
        try:
            yield place
        finally:
            sh("umount", place)
