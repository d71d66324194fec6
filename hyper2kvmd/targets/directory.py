"""Puts images and their report into the output directory, for every target that takes files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd import report
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host import space
from hyper2kvmd.host.destination import nearest_output
from hyper2kvmd.host.files import CHUNK, copy_range, data_ranges, sha256_of
from hyper2kvmd.host.leftovers import contains
from hyper2kvmd.host.placed import is_ours, why_not_ours
from hyper2kvmd.host.placing import MODE, ONLY_OURS, Placing
from hyper2kvmd.host.workspace import PLACING, require_writable
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import DiskImage, Image, SourceDisk
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, PublishedDisk
from hyper2kvmd.progress import Context, Step
from hyper2kvmd.targets.target import MakeReport


def check(order: Order, disks: int, more_names: Sequence[str] = ()) -> None:
    """Check the output directory, and that no file has a name of the report, of `more_names`, or of that many images.

    With `overwrite`, files of an earlier job may have them.

    Raises OSError, MigrationFailed (`output-exists`), and Unsafe as `nearest_output` does.
    """
    migration = order.migration
    images = migration.output_names(disks)
    wanted = [*images, *more_names, *report.names(migration)]
    wanted += [f"{name}.sha256" for name in images] if migration.checksum else []
    with nearest_output(order) as nearest:
        taken = [name for name in wanted if not nearest.missing and _is_taken(order, nearest.handle, name)]
        require_writable(Path(f"/proc/self/fd/{nearest.handle}"))
        if taken:
            raise _exists(order, nearest.handle, taken)


def _exists(order: Order, directory: int, taken: Sequence[str]) -> MigrationFailed:
    fact = f"{order.output_dir} already contains {_listed(taken)}"
    hint = f"Move these files away, or choose another vm_name or output_dir: {ONLY_OURS}"
    if order.migration.overwrite:
        reasons = (f"{name} {why_not_ours(directory, name, order)}" for name in taken)
        fact = f"{fact}, which overwrite: true does not replace: {'; '.join(reasons)}"
        hint = "Shut down the machine that uses these files and move them away, or choose another vm_name or output_dir"
    return MigrationFailed("output-exists", fact, hint=hint)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _is_taken(order: Order, directory: int, name: str) -> bool:
    """Whether a file has the name that this job may not replace."""
    replaceable = order.migration.overwrite and is_ours(directory, name, order)
    return contains(directory, name) and not replaceable


def room(order: Order, needed_bytes: int) -> int:
    """`needed_bytes`; 0 if the output directory is on the file system of the conversion directory.

    Raises OSError, MigrationFailed (`space-never`), and Unsafe as `nearest_output` does.
    """
    with nearest_output(order) as nearest:
        if os.fstat(nearest.handle).st_dev == order.conversion_dir.stat().st_dev:
            return 0
        space.require_possible(order.output_dir, needed_bytes, nearest.handle)
    return needed_bytes


def place(order: Order, plan: Plan, image: Image, make_report: MakeReport, ctx: Context) -> Artifact:
    """Put the images into the output directory: a hard link on the same file system, a copy on another.

    Images and reports get their names together, at the end; a failure before that leaves none of them. What an earlier
    attempt has prepared completely is adopted as it is. Raises MigrationFailed
    (`output-exists`, `output-unwritable`, `disk-full`), or Unsafe (`output-moved`, and as `check` does).
    """
    with _usable(order), Placing(order, image.disks[0].path.parent / PLACING) as placing:
        earlier = _adopted(placing)
        if earlier is not None:
            return earlier
        names = order.migration.output_names(len(plan.disks))
        disks = tuple(
            _published(order, disk, one, name, placing, ctx)
            for disk, one, name in zip(plan.disks, image.disks, names, strict=True)
        )
        made = make_report(disks)
        json_name, markdown_name = report.names(order.migration)
        report_json = placing.write(
            json_name, made.model_dump_json(indent=2, exclude={"order": {"finished", "bounds"}}) + "\n"
        )
        report_markdown = placing.write(markdown_name, report.markdown(made))
        if placing.unreadable:
            fact = f"{order.output_dir}: {order.submitter} cannot read the results: the file system has no ACLs"
            hint = "Mount it with ACLs, or ask an operator for a copy of the results"
            ctx.note(Concern(code="results-unreadable", message=fact, hint=hint))
        artifact = Artifact(disks=disks, format=image.format, report_json=report_json, report_markdown=report_markdown)
        placing.product = artifact.model_dump_json()
        return artifact


def placed(order: Order, folder: Path) -> Artifact | None:
    """What an earlier attempt with this working folder has placed, or prepared completely; its names are complete then.

    Raises as `place` does.
    """
    if not (folder / PLACING).exists():
        return None
    with _usable(order), Placing(order, folder / PLACING) as placing:
        return _adopted(placing)


def _adopted(placing: Placing) -> Artifact | None:
    """What an earlier attempt has prepared completely. Without its description, its files are removed."""
    if placing.earlier is None:
        return None
    artifact = Artifact.read_back(placing.earlier)
    if artifact is None:
        placing.start_over()
    return artifact


@contextmanager
def _usable(order: Order) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in space.FULL:
            raise space.disk_full(order.output_dir) from error
        raise MigrationFailed(
            "output-unwritable",
            f"images cannot be published in the output directory {order.output_dir}: {error.strerror}",
            hint="Correct the reported error (the directory must allow hard links), or name another output_dir",
            kind=Kind.OPERATOR,
        ) from error


def _published(
    order: Order, disk: SourceDisk, one: DiskImage, name: str, placing: Placing, ctx: Context
) -> PublishedDisk:
    total = one.path.stat().st_size
    one.path.chmod(MODE)
    with ctx.step(f"Publishing {name}", total=total) as step:
        file = _placed(one.path, name, placing, reserve=disk.preallocate, step=step)
    digest = None
    if order.migration.checksum:
        with ctx.step(f"Computing the checksum of {name}", total=total) as step:
            digest = sha256_of(file, step.advance_to)
        placing.know_digest(name, digest)
        placing.write(f"{name}.sha256", f"{digest}  {name}\n")
    facts = os.fstat(file)
    return PublishedDisk(
        path=order.output_dir / name,
        file_bytes=facts.st_blocks * 512,
        virtual_size=one.virtual_size,
        sha256=digest,
        inode=facts.st_ino,
        mtime_ns=facts.st_mtime_ns,
    )


def holds(order: Order, artifact: Artifact) -> bool:
    """Whether the images are still in the order's output directory."""
    return all(disk.path.parent == order.output_dir and _is_as_published(disk) for disk in artifact.disks)


def _is_as_published(disk: PublishedDisk) -> bool:
    """Whether the file of that name is still the one that was published: one of another job may now have its name."""
    try:
        facts = disk.path.lstat()
    except OSError:
        return False
    return (facts.st_ino, facts.st_mtime_ns) == (disk.inode, disk.mtime_ns)


def _placed(image: Path, name: str, placing: Placing, *, reserve: bool, step: Step) -> int:
    """The published file, open."""
    try:
        return placing.link(name, image)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    target = placing.create(name)
    _copy(image, target, reserve=reserve, step=step)
    return target


def _copy(image: Path, target: int, *, reserve: bool, step: Step) -> None:
    """Copy only data, holes stay holes (or are reserved on request), and flush at the end."""
    with open(image, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
        source, size = file.fileno(), os.fstat(file.fileno()).st_size
        os.ftruncate(target, size)
        if reserve:
            os.posix_fallocate(target, 0, size)
        for start, end in data_ranges(source, 0, size):
            while start < end:
                copied = copy_range(source, target, start, min(CHUNK, end - start))
                if copied == 0:
                    raise OSError(errno.EIO, f"{image.name} became shorter while it was copied")
                start += copied
                step.advance_to(start)
    os.fsync(target)
