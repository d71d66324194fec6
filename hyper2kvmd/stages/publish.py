"""publish: the images and their report appear in the output directory, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from hyper2kvmd import __version__
from hyper2kvmd.disk.placing import MODE, Placing
from hyper2kvmd.disk.qemu_img import disk_full
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model import (
    Artifact,
    DiskImage,
    Guest,
    Image,
    Order,
    PublishedDisk,
    Source,
    SourceDisk,
    Stage,
    Verdict,
)
from hyper2kvmd.progress import Context, Step
from hyper2kvmd.report import Report, markdown, names

CHUNK = 4 << 20


def publish(
    order: Order,
    source: Source,
    image: Image,
    guest: Guest,
    verdict: Verdict,
    seconds: Mapping[Stage, float],
    ctx: Context,
) -> Artifact:
    """Put the images into the output directory: a hard link on one file system, a copy onto another.

    Images and reports get their names together, at the end; whatever stops this before leaves none of them. Raises
    MigrationFailed (`output-exists`, `output-unwritable`, `disk-full`).
    """
    migration = order.migration
    try:
        with Placing(order.output_dir, order.job_id, image.disks[0].path.parent) as placing:
            disks = tuple(
                _publish(order, disk, one, name, placing, ctx)
                for disk, one, name in zip(source.disks, image.disks, migration.output_names, strict=True)
            )
            report = Report(
                version=__version__,
                order=order,
                source=source,
                image=image,
                guest=guest,
                verdict=verdict,
                seconds=dict(seconds),
                published=disks,
            )
            json_name, markdown_name = names(migration)
            report_json = placing.write(
                json_name, report.model_dump_json(indent=2, exclude={"order": {"finished"}}) + "\n"
            )
            report_markdown = placing.write(markdown_name, markdown(report))
        return Artifact(disks=disks, format=image.format, report_json=report_json, report_markdown=report_markdown)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(order.output_dir) from error
        raise MigrationFailed(
            "output-unwritable",
            f"the output directory {order.output_dir} does not take the images: {error.strerror}",
            hint="correct what the system complains of (it must allow hard links), or name another output_dir",
            kind=Kind.OPERATOR,
        ) from error


def _publish(
    order: Order, disk: SourceDisk, one: DiskImage, name: str, placing: Placing, ctx: Context
) -> PublishedDisk:
    total = one.path.stat().st_size
    draft = placing.draft(name)
    one.path.chmod(MODE)
    with ctx.step(f"Publishing {name}", total=total) as step:
        _fill(one.path, draft, reserve=disk.preallocate, step=step)
    digest = None
    if order.migration.checksum:
        with ctx.step(f"Computing the checksum of {name}", total=total) as step:
            digest = _sha256(draft, step)
        placing.write(f"{name}.sha256", f"{digest}  {name}\n")
    return PublishedDisk(path=order.output_dir / name, file_bytes=draft.stat().st_blocks * 512, sha256=digest)


def _fill(image: Path, draft: Path, *, reserve: bool, step: Step) -> None:
    try:
        os.link(image, draft)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(image, draft, reserve=reserve, step=step)


def _copy(image: Path, partial: Path, *, reserve: bool, step: Step) -> None:
    """Copy data only, holes stay holes (or are reserved, when asked); flushed at the end."""
    size = image.stat().st_size
    with (
        image.open("rb") as source,
        open(partial, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, MODE)) as target,
    ):
        os.ftruncate(target.fileno(), size)
        if reserve:
            os.posix_fallocate(target.fileno(), 0, size)
        for start, end in _data_ranges(source.fileno(), size):
            while start < end:
                copied = _copy_piece(source.fileno(), target.fileno(), start, min(CHUNK, end - start))
                if copied == 0:
                    raise OSError(errno.EIO, f"{image.name} became shorter while it was copied")
                start += copied
                step.advance_to(start)
        os.fchmod(target.fileno(), MODE)
        os.fsync(target.fileno())


def _copy_piece(source: int, target: int, at: int, length: int) -> int:
    """Bytes copied within the kernel: shared where two subvolumes can, else moved."""
    try:
        return os.copy_file_range(source, target, length, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    os.lseek(target, at, os.SEEK_SET)
    return os.sendfile(target, source, at, length)


def _data_ranges(handle: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, at


def _sha256(path: Path, step: Step) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            step.advance_to(done)
    return digest.hexdigest()
