"""publish: the image and its report appear in the output directory, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from hyper2kvmd import __version__
from hyper2kvmd.disk.qemu_img import disk_full
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model import Artifact, Guest, Image, Order, Source, Stage, Verdict
from hyper2kvmd.progress import Context, Step
from hyper2kvmd.report import Report, markdown

CHUNK = 4 << 20
IMAGE_MODE = 0o640


def publish(
    order: Order,
    source: Source,
    image: Image,
    guest: Guest,
    verdict: Verdict,
    seconds: Mapping[Stage, float],
    ctx: Context,
) -> Artifact:
    """Put the image into the output directory: a hard link on one file system, a copy onto another.

    The working folder keeps its own name for the image until the job has ended, so that an attempt that was
    killed half way recognises its work. Raises MigrationFailed (`output-exists`, `disk-full`).
    """
    migration = order.migration
    final = order.output_dir / migration.output_name
    image.path.chmod(IMAGE_MODE)
    total = image.path.stat().st_size
    with ctx.step("Publishing the image", total=total) as step:
        _place(image.path, final, order.job_id, reserve=source.preallocate, step=step)
    digest = None
    if migration.checksum:
        with ctx.step("Computing the checksum", total=total) as step:
            digest = _sha256(final, step)
        write_durably(final.with_name(f"{final.name}.sha256"), f"{digest}  {final.name}\n")
    report = Report(
        version=__version__,
        order=order,
        source=source,
        image=image,
        guest=guest,
        verdict=verdict,
        seconds=dict(seconds),
        sha256=digest,
    )
    report_json = order.output_dir / f"{migration.vm_name}.report.json"
    report_markdown = order.output_dir / f"{migration.vm_name}.report.md"
    write_durably(report_json, report.model_dump_json(indent=2, exclude={"order": {"finished"}}) + "\n")
    write_durably(report_markdown, markdown(report))
    return Artifact(
        image=final,
        format=image.format,
        file_bytes=final.stat().st_blocks * 512,
        sha256=digest,
        report_json=report_json,
        report_markdown=report_markdown,
    )


def write_durably(path: Path, text: str) -> None:
    """Replace `path` by `text`: `.partial`, fsync, rename, fsync of the directory. Mode 0640."""
    partial = path.with_name(f".{path.name}.partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, IMAGE_MODE)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fchmod(handle, IMAGE_MODE)
        os.fsync(handle)
    partial.rename(path)
    _sync_directory(path.parent)


def _place(image: Path, final: Path, job_id: str, *, reserve: bool, step: Step) -> None:
    try:
        _link(image, final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = final.with_name(f".{final.name}.{job_id}.partial")
        try:
            _copy(image, partial, reserve=reserve, step=step)
            _link(partial, final)
        except OSError as failure:
            raise (disk_full(final.parent) if failure.errno == errno.ENOSPC else failure) from failure
        finally:
            partial.unlink(missing_ok=True)
    _sync_directory(final.parent)


def _link(source: Path, final: Path) -> None:
    """Name `source` also `final`, unless `final` is there and not the same bytes."""
    try:
        os.link(source, final)
    except FileExistsError as error:
        if not final.is_symlink() and (final.samefile(source) or _sha256(final) == _sha256(source)):
            return
        raise MigrationFailed(
            "output-exists",
            f"{final} appeared during the migration",
            hint="move it away and retry: nothing is ever overwritten",
            kind=Kind.OPERATOR,
        ) from error


def _copy(image: Path, partial: Path, *, reserve: bool, step: Step) -> None:
    """Copy data only, holes stay holes (or are reserved, when asked); flushed at the end."""
    size = image.stat().st_size
    with (
        image.open("rb") as source,
        open(partial, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, IMAGE_MODE)) as target,
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
        os.fchmod(target.fileno(), IMAGE_MODE)
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


def _sha256(path: Path, step: Step | None = None) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if step is not None:
                step.advance_to(done)
    return digest.hexdigest()


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
