"""convert: copy the source's bytes into images in the working folder, and prove that they are the same."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.engine.compare import first_difference
from hyper2kvmd.disk.images.image import NewImage, image_bytes
from hyper2kvmd.disk.images.qcow2.reader import open_image
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.qemu.export import export
from hyper2kvmd.disk.qemu.nbd import NbdReader
from hyper2kvmd.disk.reader import SourceReader
from hyper2kvmd.disk.sources.digests import DigestCheck
from hyper2kvmd.disk.sources.source import DiskSource
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.workspace import image_name
from hyper2kvmd.model.disks import DiskImage, Image, SourceDisk
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.model.orders import Limits
from hyper2kvmd.progress import Step
from hyper2kvmd.resizing import new_sizes, whole_disks_apart
from hyper2kvmd.stages.bench import Bench
from hyper2kvmd.units import size as shown_size
from hyper2kvmd.volumes.layout import read_layout
from hyper2kvmd.volumes.superblock import BlockReader

SAMPLES = 1024
SAMPLE_BYTES = 65536


def convert(bench: Bench, plan: Plan) -> Image:
    """Convert the planned disks into the job's folder, continuing from an earlier attempt if possible.

    Raises MigrationFailed (`source-changed`, `source-digest-differs`, `content-differs`, `resize-hides-data`,
    `disk-full`), and as `DiskSource.copy_into` does.
    """
    migration, ctx = bench.migration, bench.ctx
    sources = bench.sources.planned(plan.disks)
    with _digests_beside(bench, plan) as digests:
        images = tuple(_converted(bench, plan, number, source, digests) for number, source in enumerate(sources))
    verified = tuple(_verified(plan))
    image = Image(disks=images, format=migration.out_format, layout=plan.layout)
    with ctx.step("Comparing images and source"):
        evidence = prove_same(sources, plan, image, bench.folder, bench.keys())
    if migration.verify != "check":
        evidence += tuple(_compared(bench, plan, image, number, source) for number, source in enumerate(sources))
    for source in sources:
        source.require_unchanged()
    evidence = (*verified, *evidence, "the source files did not change meanwhile")
    return _grown(bench, plan, image.with_changes(evidence=evidence))


@contextmanager
def _digests_beside(bench: Bench, plan: Plan) -> Iterator[DigestCheck]:
    """Compare the source's files with their digests during the block. Raises MigrationFailed at its end."""
    checksums = tuple(one for disk in plan.machine.disks for one in disk.checksums)
    check = DigestCheck(checksums, bench.mandate, copy_limits(bench.order.limits).bytes_per_second)
    check.start()
    try:
        yield check
        if not checksums:
            return
        total = sum(file.read_bytes for disk in plan.disks for file in disk.files)
        with bench.ctx.step("Comparing the source with its digests", total=max(total, check.done)) as step:
            check.finish(lambda done: step.advance_to(min(done, total)))
    finally:
        check.stop()


def _verified(plan: Plan) -> Iterator[str]:
    for number, disk in enumerate(plan.machine.disks):
        for one in disk.checksums:
            yield f"{_of(number, plan)}the {one.algorithm.upper()} of {one.of} is that of {one.manifest}"


def _converted(bench: Bench, plan: Plan, number: int, source: DiskSource, digests: DigestCheck) -> DiskImage:
    migration, disk = bench.migration, plan.disks[number]
    path = bench.folder / image_name(number, migration.out_format)
    with bench.ctx.step(f"Converting disk {number + 1}/{len(plan.disks)}", total=disk.data_bytes) as step:

        def on_progress(now: copy.Amounts) -> None:
            digests.require_no_failure()
            step.advance_to(now.read, written=now.written, resumed=now.resumed)

        source.copy_into(
            NewImage(
                path,
                migration.out_format,
                disk.data_bytes,
                compress=migration.compress,
                level=migration.compress_level,
                reserve=disk.preallocate,
            ),
            copy_limits(bench.order.limits),
            on_progress,
        )
    return DiskImage(
        path=path,
        virtual_size=qemu_img.virtual_size(path, migration.out_format),
        file_bytes=path.stat().st_blocks * 512,
    )


def _grown(bench: Bench, plan: Plan, image: Image) -> Image:
    """The images with the sizes that `resize` asks for. What is on them is found as before.

    Raises MigrationFailed (`resize-hides-data`).
    """
    sizes = new_sizes(bench.migration, plan.disks)
    if sizes == tuple(one.virtual_size for one in image.disks):
        return image
    with bench.ctx.step("Growing the disks"):
        disks = tuple(
            _grown_to(size, disk, one, image.format)
            for size, disk, one in zip(sizes, plan.disks, image.disks, strict=True)
        )
        with ExitStack() as stack:
            readers = [stack.enter_context(_read_by_qemu(one, image.format, bench.folder)) for one in disks]
            found = read_layout(readers, bench.keys())
    if whole_disks_apart(found) != whole_disks_apart(plan.layout):
        raise MigrationFailed(
            "resize-hides-data",
            f"{bench.migration.vm_name}: a volume of these disks is only found at their present size",
            hint="Remove resize, and move the volume with the guest's own tools after the migration",
        )
    same = f"grown to {', '.join(map(str, sizes))} bytes: partitions and volumes read back as before"
    return image.with_changes(disks=disks, evidence=(*image.evidence, same))


def _grown_to(size: int, disk: SourceDisk, one: DiskImage, fmt: Literal["qcow2", "raw"]) -> DiskImage:
    if size == one.virtual_size:
        return one
    qemu_img.resize(one.path, fmt, size)
    if disk.preallocate:
        copy.reserve(one.path, image_bytes(size, None, fmt))
    found = qemu_img.virtual_size(one.path, fmt)
    return one.with_changes(virtual_size=found, file_bytes=one.path.stat().st_blocks * 512)


def _compared(bench: Bench, plan: Plan, image: Image, number: int, source: DiskSource) -> str:
    disk, threads = plan.disks[number], bench.order.limits.threads or copy.CopyLimits().threads
    title = f"Comparing every byte of disk {number + 1}/{len(plan.disks)}"
    with bench.ctx.step(title, total=disk.virtual_size) as step:
        prove_all_same(source, disk, image.disks[number], image.format, threads=threads, step=step)
    return f"{_of(number, plan)}all {disk.virtual_size} bytes read the same from source and image"


def _of(number: int, plan: Plan) -> str:
    return f"disk {number + 1}: " if len(plan.disks) > 1 else ""


def copy_limits(limits: Limits) -> copy.CopyLimits:
    """A job's limits, for the copy engine."""
    threads = limits.threads or copy.CopyLimits().threads
    return copy.CopyLimits(threads=threads, bytes_per_second=limits.bandwidth_limit or None)


def prove_same(
    sources: Sequence[DiskSource], plan: Plan, image: Image, folder: Path, keys: tuple[bytes, ...] = ()
) -> tuple[str, ...]:
    """Compare sizes, layout with every superblock's UUID, and samples spread over the disks; returns evidence.

    QEMU reads the images, and the source as well if it can, so that our reader and writer are checked independently.
    """
    evidence = []
    with ExitStack() as stack:
        readers = [stack.enter_context(_read_by_qemu(one, image.format, folder)) for one in image.disks]
        for number, (source, theirs) in enumerate(zip(sources, readers, strict=True)):
            disk, one = plan.disks[number], image.disks[number]
            if one.virtual_size != disk.virtual_size:
                raise _differs(disk, f"the image has {one.virtual_size} bytes instead of {disk.virtual_size}")
            count, witness = _prove_samples(source, disk, theirs, folder)
            evidence += [
                f"{_of(number, plan)}virtual size {shown_size(one.virtual_size)}, as the source's",
                f"{_of(number, plan)}{count} samples of {SAMPLE_BYTES} bytes spread over the disk read the same, "
                f"{witness}",
            ]
        if read_layout(readers, keys) != plan.layout:
            raise _differs(plan.disks[0], "partitions or file systems of the images are not the source's")
    return (*evidence, f"partition tables and {len(plan.layout.volumes)} volumes read back as in the source")


def _prove_samples(source: DiskSource, disk: SourceDisk, theirs: BlockReader, folder: Path) -> tuple[int, str]:
    offsets = _sample_offsets(disk.virtual_size)
    with _second_opinion(source, folder) as (ours, witness):
        for offset in offsets:
            length = min(SAMPLE_BYTES, disk.virtual_size - offset)
            if ours.read(offset, length) != theirs.read(offset, length):
                raise _differs(disk, f"the {length} bytes at offset {offset} differ")
    return len(offsets), witness


@contextmanager
def _read_by_qemu(one: DiskImage, fmt: Literal["qcow2", "raw"], folder: Path) -> Iterator[BlockReader]:
    with (
        export(one.path, fmt, folder, exports={"image": None}, writable=False) as exporter,
        NbdReader(exporter.socket, "image") as reader,
    ):
        yield reader


@contextmanager
def _second_opinion(source: DiskSource, folder: Path) -> Iterator[tuple[BlockReader, str]]:
    """The source as QEMU reads it, or as we do, if QEMU cannot read this disk as its hypervisor does."""
    files, node = source.files, source.qemu_node
    if node and qemu_img.reads_as(files, node.driver, node.options, source.virtual_size, folder):
        with (
            export(
                files[0].path,
                node.driver,
                folder,
                exports={"source": None},
                writable=False,
                opened=files,
                settings=node.options,
            ) as exporter,
            NbdReader(exporter.socket, "source") as reader,
        ):
            yield reader, "the source read by QEMU"
    else:
        yield SourceReader(source), "the source read by the same code as before: QEMU cannot read it"


def prove_all_same(
    source: DiskSource, disk: SourceDisk, one: DiskImage, fmt: Literal["qcow2", "raw"], *, threads: int, step: Step
) -> None:
    """Compare every byte of a disk and its image; raises MigrationFailed (`content-differs`)."""
    with open_image(one.path, fmt) as opened:
        at = first_difference(source, opened, threads=threads, on_progress=step.advance_to)
    if at is not None:
        raise _differs(disk, f"the byte at offset {at} is the first that differs")


def _sample_offsets(size: int) -> list[int]:
    """Both ends, and one place in each of SAMPLES equal parts of the disk, which is unpredictable."""
    pick = random.SystemRandom()
    part = max(SAMPLE_BYTES, size // SAMPLES)
    offsets = (start + pick.randrange(max(1, part - SAMPLE_BYTES)) for start in range(0, size, part))
    inside = [offset - offset % 512 for offset in offsets if offset < size]
    return [0, *inside, max(0, size - SAMPLE_BYTES)]


def _differs(disk: SourceDisk, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "content-differs",
        f"the image of {disk.at} is not a faithful copy: {fact}",
        hint="Check the storage of source and conversion directory for errors, then retry",
        kind=Kind.RETRY,
    )
