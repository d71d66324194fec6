"""convert: the source's bytes become an image in the working folder, and are shown to be the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd.disk import conversion, copy, qemu_img
from hyper2kvmd.disk.compare import first_difference
from hyper2kvmd.disk.export import export
from hyper2kvmd.disk.layout import read_layout
from hyper2kvmd.disk.nbd import Reader
from hyper2kvmd.disk.qcow2_reader import open_image
from hyper2kvmd.disk.source_file import require_unchanged
from hyper2kvmd.disk.source_reader import SourceReader
from hyper2kvmd.disk.sources import open_source
from hyper2kvmd.disk.superblock import BlockReader
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model import Image, Limits, Order, Source, SourceDisk
from hyper2kvmd.progress import Context, Step

SAMPLES = 1024
SAMPLE_BYTES = 65536


def convert(order: Order, source: Source, folder: Path, ctx: Context) -> Image:
    """Convert the source's disk into `folder`, going on from what a killed attempt left there where that is possible.

    Raises MigrationFailed (`content-differs`), and as `conversion.convert` does.
    """
    migration, disk = order.migration, source.disks[0]
    target = folder / f"disk.{migration.out_format}"
    require_unchanged(disk.files)
    _copy(order, source, target, ctx)
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
            prove_all_same(disk, image, threads=order.limits.threads or copy.Limits().threads, step=step)
        evidence = (*evidence, f"all {disk.virtual_size} bytes read the same from source and image")
    require_unchanged(disk.files)
    return image.model_copy(update={"evidence": (*evidence, "the source files did not change meanwhile")})


def _copy(order: Order, source: Source, target: Path, ctx: Context) -> None:
    migration, disk = order.migration, source.disks[0]
    with ctx.step("Converting disk 1/1", total=disk.data_bytes) as step:
        conversion.convert(
            disk,
            target,
            migration.out_format,
            compress=migration.compress,
            reserve=source.preallocate,
            limits=copy_limits(order.limits),
            on_progress=lambda now: step.advance_to(now.read, written=now.written, resumed=now.resumed),
        )


def copy_limits(limits: Limits) -> copy.Limits:
    """A job's limits as the engine takes them."""
    threads = limits.threads or copy.Limits().threads
    return copy.Limits(threads=threads, bytes_per_second=limits.bandwidth_limit or None)


def prove_same(disk: SourceDisk, image: Image, folder: Path) -> tuple[str, ...]:
    """Size, layout with every superblock's UUID, and samples spread over the disk, seen from both sides.

    QEMU reads the image, and the source as well where it can, so that neither our reader nor our writer is its own
    only witness.
    """
    if image.virtual_size != disk.virtual_size:
        raise _differs(disk, f"the image has {image.virtual_size} bytes instead of {disk.virtual_size}")
    with (
        _second_opinion(disk, folder) as (ours, witness),
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
        f"{len(offsets)} samples of {SAMPLE_BYTES} bytes spread over the disk read the same, {witness}",
    )


@contextmanager
def _second_opinion(disk: SourceDisk, folder: Path) -> Iterator[tuple[BlockReader, str]]:
    """The source as QEMU reads it; as we do, for the kinds of VMDK that QEMU knows nothing of."""
    files = tuple(file.path for file in disk.files)
    if qemu_img.reads_as(disk.path, disk.format, files, disk.virtual_size):
        with (
            export(disk.path, disk.format, folder, exports={"source": None}, writable=False, extra_read=files) as left,
            Reader(left.socket, "source") as reader,
        ):
            yield reader, "the source read by QEMU"
    else:
        with open_source(disk.path, folder) as source:
            yield SourceReader(source), "the source read by the same code as before: QEMU cannot read it"


def prove_all_same(disk: SourceDisk, image: Image, *, threads: int, step: Step) -> None:
    """Every byte of source and image; raises MigrationFailed (`content-differs`)."""
    with open_source(disk.path, image.path.parent) as source, open_image(image.path, image.format) as opened:
        at = first_difference(source, opened, threads=threads, on_progress=step.advance_to)
    if at is not None:
        raise _differs(disk, f"the byte at offset {at} is the first that differs")


def _sample_offsets(size: int) -> list[int]:
    """Both ends, and one place in each of SAMPLES equal parts of the disk; the same for the same size."""
    pick = random.Random(size)  # noqa: S311 - spreads samples, guards nothing
    part = max(SAMPLE_BYTES, size // SAMPLES)
    offsets = (start + pick.randrange(max(1, part - SAMPLE_BYTES)) for start in range(0, size, part))
    inside = [offset - offset % 512 for offset in offsets if offset < size]
    return [0, *inside, max(0, size - SAMPLE_BYTES)]


def _differs(disk: SourceDisk, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "content-differs",
        f"the image of {disk.path} is not a faithful copy: {fact}",
        hint="check the storage of source and conversion directory for errors, then retry",
        kind=Kind.RETRY,
    )
