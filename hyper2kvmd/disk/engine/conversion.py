"""One source into one image file: by our engine what that can read, by qemu-img what QEMU alone reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.images import qcow2
from hyper2kvmd.disk.images.raw import RawTarget
from hyper2kvmd.disk.images.target import Target
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.sources.foreign import ForeignSource
from hyper2kvmd.disk.sources.opening import open_source
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model import SourceDisk

Format = Literal["qcow2", "raw"]


def convert(
    disk: SourceDisk,
    target: Path,
    target_format: Format,
    *,
    compress: bool = False,
    reserve: bool = False,
    limits: copy.Limits,
    on_progress: Callable[[copy.Amounts], None] = lambda _amounts: None,
) -> None:
    """Write `target`, complete and flushed, from the very files that `disk` was planned with.

    What a killed conversion left there is gone on from where our engine wrote it, and written anew where qemu-img did.
    Raises MigrationFailed (`source-changed`), and as `open_source`, `copy.copy` and `qemu_img.convert` do.
    """
    with open_source(disk.path, target.parent) as source:
        if source.files != disk.files:
            raise MigrationFailed(
                "source-changed",
                f"{disk.path} is no longer what it was when the migration was planned",
                hint="stop whatever writes to it (is the VM still running?), then retry",
                kind=Kind.OPERATOR,
            )
        if not isinstance(source, ForeignSource):
            identity = "\n".join(file.model_dump_json() for file in disk.files)
            with contextlib.closing(_target(target, target_format, disk.virtual_size, compress=compress)) as image:
                copy.copy(source, image, identity=identity, reserve=reserve, limits=limits, on_progress=on_progress)
            return

        def on_fraction(done: float) -> None:
            on_progress(copy.Amounts(int(done * disk.data_bytes), target.stat().st_blocks * 512, disk.data_bytes))

        qemu_img.convert(
            source.file,
            source.format,
            target,
            target_format,
            virtual_size=disk.virtual_size,
            compress=compress,
            reserve=reserve,
            threads=limits.threads,
            bytes_per_second=limits.bytes_per_second,
            on_fraction=on_fraction,
        )
        on_fraction(1.0)


def image_bytes(virtual_size: int, data_bytes: int | None, target_format: Format) -> int:
    """What an uncompressed image of a disk with so much data occupies; of all of the disk when that is None."""
    if target_format == "raw":
        return virtual_size if data_bytes is None else data_bytes
    return qcow2.full_size(virtual_size, data_bytes)


def _target(path: Path, target_format: Format, size: int, *, compress: bool) -> Target:
    return RawTarget(path, size) if target_format == "raw" else qcow2.Writer(path, size, compress=compress)
