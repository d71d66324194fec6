"""convert: the source's bytes become images in the working folder, and are shown to be the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.engine.compare import first_difference
from hyper2kvmd.disk.files import require_unchanged
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.images.qcow2.reader import open_image
from hyper2kvmd.disk.key_files import read_keys
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.qemu.export import export
from hyper2kvmd.disk.qemu.nbd import Reader
from hyper2kvmd.disk.reader import SourceReader
from hyper2kvmd.disk.sources import conversion
from hyper2kvmd.disk.sources.conversion import open_planned
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.host.workspace import image_name
from hyper2kvmd.model.disks import DiskImage, Image, SourceDisk
from hyper2kvmd.model.machine import Source
from hyper2kvmd.model.orders import Limits, Order
from hyper2kvmd.progress import Context, Step
from hyper2kvmd.volumes.layout import read_layout
from hyper2kvmd.volumes.superblock import BlockReader

SAMPLES = 1024
SAMPLE_BYTES = 65536


def convert(order: Order, source: Source, folder: Path, ctx: Context) -> Image:
    """Convert the source's disks into `folder`, going on from what an earlier attempt left if it can be used.

    Raises MigrationFailed (`content-differs`), and as `conversion.convert` does.
    """
    files, mandate = tuple(file for disk in source.disks for file in disk.files), Mandate.of(order)
    require_unchanged(files, mandate)
    images = tuple(_converted(order, source, number, folder, ctx) for number in range(len(source.disks)))
    image = Image(disks=images, format=order.migration.out_format, layout=source.layout)
    with ctx.step("Comparing images and source"):
        evidence = prove_same(source, image, folder, read_keys(order.migration.luks_keyfile, mandate), mandate)
    if order.migration.verify != "check":
        evidence += tuple(_compared(order, source, image, number, ctx) for number in range(len(images)))
    require_unchanged(files, mandate)
    return image.with_changes(evidence=(*evidence, "the source files did not change meanwhile"))


def _converted(order: Order, source: Source, number: int, folder: Path, ctx: Context) -> DiskImage:
    migration, disk = order.migration, source.disks[number]
    target = folder / image_name(number, migration.out_format)
    with ctx.step(f"Converting disk {number + 1}/{len(source.disks)}", total=disk.data_bytes) as step:
        conversion.convert(
            disk,
            NewImage(target, migration.out_format, disk.data_bytes, migration.compress, disk.preallocate),
            mandate=Mandate.of(order),
            limits=copy_limits(order.limits),
            on_progress=lambda now: step.advance_to(now.read, written=now.written),
        )
    return DiskImage(
        path=target,
        virtual_size=qemu_img.virtual_size(target, migration.out_format, (target,)),
        file_bytes=target.stat().st_blocks * 512,
    )


def _compared(order: Order, source: Source, image: Image, number: int, ctx: Context) -> str:
    disk, threads = source.disks[number], order.limits.threads or copy.Limits().threads
    with ctx.step(f"Comparing every byte of disk {number + 1}/{len(source.disks)}", total=disk.virtual_size) as step:
        prove_all_same(disk, image.disks[number], image.format, Mandate.of(order), threads=threads, step=step)
    return f"{_of(number, source)}all {disk.virtual_size} bytes read the same from source and image"


def _of(number: int, source: Source) -> str:
    return f"disk {number + 1}: " if len(source.disks) > 1 else ""


def copy_limits(limits: Limits) -> copy.Limits:
    """A job's limits as the engine takes them."""
    threads = limits.threads or copy.Limits().threads
    return copy.Limits(threads=threads, bytes_per_second=limits.bandwidth_limit or None)


def prove_same(
    source: Source, image: Image, folder: Path, keys: tuple[bytes, ...] = (), mandate: Mandate = ANYONE
) -> tuple[str, ...]:
    """Sizes, layout with every superblock's UUID, and samples spread over the disks, seen from both sides.

    QEMU reads the images, and the source as well where it can, so that neither our reader nor our writer is its own
    only witness.
    """
    evidence = []
    with ExitStack() as stack:
        readers = [stack.enter_context(_read_by_qemu(one, image.format, folder)) for one in image.disks]
        for number, (disk, one, theirs) in enumerate(zip(source.disks, image.disks, readers, strict=True)):
            if one.virtual_size != disk.virtual_size:
                raise _differs(disk, f"the image has {one.virtual_size} bytes instead of {disk.virtual_size}")
            count, witness = _prove_samples(disk, theirs, folder, mandate)
            evidence += [
                f"{_of(number, source)}virtual size {one.virtual_size} bytes, as the source's",
                f"{_of(number, source)}{count} samples of {SAMPLE_BYTES} bytes spread over the disk read the same, "
                f"{witness}",
            ]
        if read_layout(readers, keys) != source.layout:
            raise _differs(source.disks[0], "partitions or file systems of the images are not the source's")
    return (*evidence, f"partition tables and {len(source.layout.volumes)} volumes read back as in the source")


def _prove_samples(disk: SourceDisk, theirs: BlockReader, folder: Path, mandate: Mandate) -> tuple[int, str]:
    offsets = _sample_offsets(disk.virtual_size)
    with _second_opinion(disk, folder, mandate) as (ours, witness):
        for offset in offsets:
            length = min(SAMPLE_BYTES, disk.virtual_size - offset)
            if ours.read(offset, length) != theirs.read(offset, length):
                raise _differs(disk, f"the {length} bytes at offset {offset} differ")
    return len(offsets), witness


@contextmanager
def _read_by_qemu(one: DiskImage, fmt: Literal["qcow2", "raw"], folder: Path) -> Iterator[BlockReader]:
    with (
        export(one.path, fmt, folder, exports={"image": None}, writable=False) as exporter,
        Reader(exporter.socket, "image") as reader,
    ):
        yield reader


@contextmanager
def _second_opinion(disk: SourceDisk, folder: Path, mandate: Mandate) -> Iterator[tuple[BlockReader, str]]:
    """The source as QEMU reads it; as we do, for the kinds of VMDK that QEMU knows nothing of."""
    files = tuple(file.path for file in disk.files)
    if qemu_img.reads_as(disk.path, disk.format, files, disk.virtual_size):
        with (
            export(disk.path, disk.format, folder, exports={"source": None}, writable=False, extra_read=files) as left,
            Reader(left.socket, "source") as reader,
        ):
            yield reader, "the source read by QEMU"
    else:
        with open_planned(disk, folder, mandate) as source:
            yield SourceReader(source), "the source read by the same code as before: QEMU cannot read it"


def prove_all_same(
    disk: SourceDisk,
    one: DiskImage,
    fmt: Literal["qcow2", "raw"],
    mandate: Mandate = ANYONE,
    *,
    threads: int,
    step: Step,
) -> None:
    """Every byte of a disk and its image; raises MigrationFailed (`content-differs`)."""
    with open_planned(disk, one.path.parent, mandate) as source, open_image(one.path, fmt) as opened:
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
