"""convert: the source's bytes become an image in the working folder, and are shown to be the same bytes."""

from __future__ import annotations

import os
import random
from pathlib import Path

from hyper2kvmd.disk import qemu_img, vmdk
from hyper2kvmd.disk.export import export
from hyper2kvmd.disk.layout import read_layout
from hyper2kvmd.disk.nbd import Reader
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model import Image, Order, Source, SourceDisk
from hyper2kvmd.progress import Context

SAMPLES = 1024
SAMPLE_BYTES = 65536


def convert(order: Order, source: Source, folder: Path, ctx: Context) -> Image:
    """Convert the source's disk into `folder`.

    Raises MigrationFailed (`source-changed`, `disk-full`, `content-differs`, `tool-failed`, `tool-stalled`).
    """
    migration, disk = order.migration, source.disks[0]
    target = folder / f"disk.{migration.out_format}"
    target.unlink(missing_ok=True)
    vmdk.require_unchanged(disk.files)
    files = tuple(file.path for file in disk.files)
    with ctx.step("Converting disk 1/1", total=disk.virtual_size) as step:
        qemu_img.convert(
            disk.path,
            files,
            target,
            migration.out_format,
            compress=migration.compress,
            preallocate=source.preallocate,
            on_percent=lambda percent: step.advance_to(int(disk.virtual_size * percent / 100)),
        )
        _flush(target)
        step.advance_to(disk.virtual_size)
    image = Image(
        path=target,
        format=migration.out_format,
        virtual_size=qemu_img.virtual_size(target, migration.out_format, (target,)),
        file_bytes=target.stat().st_blocks * 512,
        layout=disk.layout,
    )
    with ctx.step("Comparing image and source"):
        evidence = prove_same(disk, image, folder)
    if migration.verify != "check":
        with ctx.step("Comparing every byte", total=disk.virtual_size) as step:
            same = qemu_img.compare(
                disk.path,
                files,
                target,
                image.format,
                lambda percent: step.advance_to(int(disk.virtual_size * percent / 100)),
            )
            if not same:
                raise _differs(disk, "qemu-img compare found a difference")
            step.advance_to(disk.virtual_size)
        evidence = (*evidence, f"all {disk.virtual_size} bytes read the same from source and image")
    vmdk.require_unchanged(disk.files)
    return image.model_copy(update={"evidence": (*evidence, "the source files did not change meanwhile")})


def prove_same(disk: SourceDisk, image: Image, folder: Path) -> tuple[str, ...]:
    """Size, layout with every superblock's UUID, and samples spread over the disk, seen from both sides."""
    if image.virtual_size != disk.virtual_size:
        raise _differs(disk, f"the image has {image.virtual_size} bytes instead of {disk.virtual_size}")
    files = tuple(file.path for file in disk.files)
    with (
        export(disk.path, "vmdk", folder, exports={"source": None}, writable=False, extra_read=files) as left,
        Reader(left.socket, "source") as ours,
        export(image.path, image.format, folder, exports={"image": None}, writable=False) as right,
        Reader(right.socket, "image") as theirs,
    ):
        if read_layout(theirs) != disk.layout:
            raise _differs(disk, "partitions or file systems of the image are not the source's")
        offsets = _sample_offsets(disk.virtual_size)
        for offset in offsets:
            length = min(SAMPLE_BYTES, disk.virtual_size - offset)
            if ours.read(offset, length) != theirs.read(offset, length):
                raise _differs(disk, f"the {length} bytes at offset {offset} differ")
    return (
        f"virtual size {image.virtual_size} bytes, as the source's",
        f"partition table and {len(disk.layout.volumes)} volumes read back as in the source",
        f"{len(offsets)} samples of {SAMPLE_BYTES} bytes spread over the disk read the same",
    )


def _sample_offsets(size: int) -> list[int]:
    """Both ends, and one place in each of SAMPLES equal parts of the disk; the same for the same size."""
    pick = random.Random(size)  # noqa: S311 - spreads samples, guards nothing
    part = max(SAMPLE_BYTES, size // SAMPLES)
    offsets = (start + pick.randrange(max(1, part - SAMPLE_BYTES)) for start in range(0, size, part))
    inside = [offset - offset % 512 for offset in offsets if offset < size]
    return [0, *inside, max(0, size - SAMPLE_BYTES)]


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _differs(disk: SourceDisk, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "content-differs",
        f"the image of {disk.path} is not a faithful copy: {fact}",
        hint="check the storage of source and conversion directory for errors, then retry",
        kind=Kind.RETRY,
    )
