"""Changes to the images of a job that are made as a whole: on an overlay of each, which is then committed.

A killed attempt leaves clean images, or complete overlays with a note, which the next attempt commits. Raw images are
changed in place, since a host without NBD and FUSE can still do that: an attempt that was killed in between leaves a
mark, and they have to be converted again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.qemu.export import Backing
from hyper2kvmd.host.files import sync_folder, write_durably
from hyper2kvmd.model.disks import DiskImage, Image

NOTE, CHANGING = "complete.json", "changing"
"""Files beside the overlays. The second one is there while raw images are changed."""


@dataclass(frozen=True)
class Overlays:
    """The overlays of one job's images; `folder` has them and whatever else the next attempt must not find."""

    folder: Path
    image: Image

    @property
    def unclean(self) -> bool:
        """Whether an attempt was killed while it changed a raw image."""
        return (self.folder / CHANGING).exists() and self.note is None

    @property
    def note(self) -> str | None:
        """The text of an attempt whose changes are complete."""
        try:
            return (self.folder / NOTE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def create(self) -> Image:
        """Images to change instead of the job's own, which is `backing`. Raises OSError, and MigrationFailed as `run`.

        What an earlier attempt has left is removed.
        """
        discard(self.folder)
        self.folder.mkdir(mode=0o700)
        if self.image.format == "raw":
            return self.image
        overlays = tuple(self._create(number, disk) for number, disk in enumerate(self.image.disks))
        return Image(disks=overlays, format="qcow2", layout=self.image.layout)

    @property
    def backing(self) -> tuple[Backing, ...]:
        """The disk below each overlay; empty for raw images."""
        if self.image.format == "raw":
            return ()
        return tuple(Backing(disk.path, "qcow2") for disk in self.image.disks)

    def before_change(self) -> None:
        """To be called before the first byte changes. Raises OSError."""
        if self.image.format == "raw" and not (self.folder / CHANGING).exists():
            write_durably(self.folder / CHANGING, "")
            sync_folder(self.folder.parent)

    def complete(self, note: str) -> None:
        """All changes are made: whatever happens from now on, they get into the images. Raises OSError."""
        paths = [path for path, _ in self._left()] or [disk.path for disk in self.image.disks]
        for path in paths:
            _flush(path)
        write_durably(self.folder / NOTE, note)
        sync_folder(self.folder.parent)

    def commit(self) -> None:
        """Bring complete overlays into the images. Raises OSError, and MigrationFailed as `run` does."""
        for path, disk in self._left():
            if path.stat().st_size > qemu_img.EMPTY_BYTES or not qemu_img.is_empty(path):
                qemu_img.commit(path, disk.path)
                _flush(disk.path)
            path.unlink()

    def _create(self, number: int, disk: DiskImage) -> DiskImage:
        path = self._path(number)
        qemu_img.create(path, disk.virtual_size)
        return disk.with_changes(path=path, file_bytes=path.stat().st_size)

    def _left(self) -> Iterator[tuple[Path, DiskImage]]:
        """The overlays that are there, and the image of each."""
        for number, disk in enumerate(self.image.disks):
            if self._path(number).exists():
                yield self._path(number), disk

    def _path(self, number: int) -> Path:
        return self.folder / f"overlay{number + 1}.qcow2"


def discard(folder: Path) -> None:
    """Remove the overlays in `folder`, if there are any. Raises OSError."""
    if folder.exists():
        (folder / NOTE).unlink(missing_ok=True)  # first: without it, nothing here counts
        shutil.rmtree(folder)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
