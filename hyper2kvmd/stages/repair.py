"""Repair: make the guest in the converted image boot on KVM, offline, without running any of its programs."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd.booting import decide_boot_disk
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.qemu.export import Backing
from hyper2kvmd.disk.qemu.overlays import Overlays
from hyper2kvmd.disk.reader import SourceReader
from hyper2kvmd.disk.sources.source import DiskSource
from hyper2kvmd.errors import BrokenInstallation, Failure, Kind, MigrationFailed, TryLater
from hyper2kvmd.findings import Several
from hyper2kvmd.guest.choice import find_guest
from hyper2kvmd.guest.family import GuestDisks, describe, warning
from hyper2kvmd.guest.mounts import access
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS, check_helper
from hyper2kvmd.guest.nics import note_new_addresses
from hyper2kvmd.guest.tested import note_if_not_booted
from hyper2kvmd.guest.windows.drivers.vetting import vet
from hyper2kvmd.guest.windows.volumes import has_windows
from hyper2kvmd.hardware import wants_secure_boot
from hyper2kvmd.host import space
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern, ConcernLevel
from hyper2kvmd.model.disks import DiskImage, EmptyDisk, Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.stages.bench import Bench
from hyper2kvmd.volumes.mapping import OpenDisks

LOOKING, LEAVING = "Looking for the operating system", "Leaving the disks as they are (guest: none)"


def repair(bench: Bench, plan: Plan, image: Image) -> Guest:
    """Find the guest in `image` and repair it; returns its description with the changes.

    The image gets all changes or none, and a killed attempt leaves it clean or complete. Raises MigrationFailed: as its
    family and `Access.mount` do, and `guest-damaged` or `guest-io-error` for a file system that fails while it is read;
    and TryLater (`space-short`).
    """
    overlays = bench.overlays(image)
    with _full_disk_named(bench):
        note = overlays.note
        if note is None:
            note = _repair_on(overlays, bench, plan).model_dump_json()
            overlays.complete(note)
        overlays.commit()
    return Guest.model_validate_json(note)


def _repair_on(overlays: Overlays, bench: Bench, plan: Plan) -> Guest:
    changed = overlays.create()
    with (
        _damage_named(bench.folder),
        access.open_image(
            changed,
            bench.helper,
            bench.folder,
            bench.keys(),
            backing=overlays.backing,
            before_change=overlays.before_change,
        ) as opened,
    ):
        return _repair(bench, plan, opened, bench.migration)


@contextmanager
def _full_disk_named(bench: Bench) -> Iterator[None]:
    """A write that found no space is no fault of the guest, whatever error that became on its way through the kernel.

    The image is clean, so the job waits. Raises TryLater (`space-short`).
    """
    try:
        yield
    except (Failure, OSError) as error:
        if not space.is_full(bench.folder):
            raise
        raise TryLater(
            "space-short",
            f"{bench.folder} is on a full file system: the guest could not be repaired there",
            hint="Free space there. The job continues when there is enough",
        ) from error


def rehearse(bench: Bench, plan: Plan) -> None:
    """For Windows: find what prevents its repair, and what is to be said about it, before a byte is converted.

    Raises MigrationFailed as `repair` does.
    """
    if bench.migration.guest == "none":
        return
    readers = OpenDisks([SourceReader(source) for source in bench.sources.planned(plan.disks)])
    if has_windows(plan.layout, lambda volume: readers.reader(volume.stretches)):
        preview(bench, plan, level="information")


def preview(bench: Bench, plan: Plan, *, level: ConcernLevel = "warning") -> Guest | None:
    """The guest on the source disks with the changes that `repair` will make; none of them is written.

    Only throwaway overlays on the sources can change. None, with a concern of that level, if the guest cannot be
    reached before the conversion. Raises MigrationFailed as `repair` does.
    """
    sources = bench.sources.planned(plan.disks)
    with bench.ctx.step("Opening the source for inspection"):
        backing = tuple(_as_backing(source, bench.folder) for source in sources)
        reason = _unreachable(bench, plan, backing)
    if reason is not None:
        bench.ctx.note(
            Concern(
                code="guest-not-shown",
                message=f"the guest can only be inspected after the conversion: {reason}",
                hint="Correct the cause to learn of its repairs and obstacles before the conversion",
                level=level,
            )
        )
        _note_driver_signatures(bench, plan)
        return None
    with tempfile.TemporaryDirectory(prefix="preview-", dir=bench.folder) as name, _damage_named(bench.folder):
        folder = Path(name)
        overlays = Image(disks=tuple(_overlays(sources, folder)), format="qcow2", layout=plan.layout)
        with access.open_image(overlays, bench.helper, folder, bench.keys(), backing=backing) as opened:
            return _repair(bench, plan, opened, bench.migration.with_changes(dry_run=True))


def _note_driver_signatures(bench: Bench, plan: Plan) -> None:
    """The release of the guest is not known, so they are about all releases."""
    if any(volume.content == "ntfs" for volume in plan.layout.volumes):
        with bench.driver_source() as source:
            for concern in vet(source) if source is not None else ():
                bench.ctx.note(concern)


def _repair(bench: Bench, plan: Plan, opened: access.Access, migration: Migration) -> Guest:
    virtio_win, mandate = bench.driver_place
    disks = GuestDisks(
        opened,
        plan.layout,
        migration,
        bench.ctx,
        plan.firmware,
        secure_boot=wants_secure_boot(migration, plan),
        nics=plan.machine.nics,
        identities=plan.identities,
        virtio_win=virtio_win,
        mandate=mandate,
    )
    return _with_boot_disk(bench, plan, repair_disks(disks))


def _as_backing(source: DiskSource, folder: Path) -> Backing | None:
    """None if QEMU cannot read this disk as its hypervisor does, and for a disk of zeros: nothing is below that."""
    files, node = source.files, source.qemu_node
    if node and qemu_img.reads_as(files, node.driver, node.options, source.virtual_size, folder):
        return Backing(files[0].path, node.driver, node.options, files)
    return None


def _unreachable(bench: Bench, plan: Plan, backing: Sequence[Backing | None]) -> str | None:
    """Why the guest on the source cannot be mounted; a run with raw images may need less of the host."""
    for disk, one in zip(plan.disks, backing, strict=True):
        if one is None and not isinstance(disk.at, EmptyDisk):
            return f"QEMU cannot read {disk.at} as its hypervisor does"
    if any(volume.content in FILE_SYSTEMS for volume in plan.layout.volumes):
        try:
            check_helper(bench.helper, ())
        except (BrokenInstallation, Several) as failure:
            return failure.message
    return None


def _overlays(sources: Sequence[DiskSource], folder: Path) -> Iterator[DiskImage]:
    for number, source in enumerate(sources, start=1):
        path = folder / f"disk{number}.qcow2"
        qemu_img.create(path, source.virtual_size)
        yield DiskImage(path=path, virtual_size=source.virtual_size, file_bytes=path.stat().st_size)


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """The guest's own files are reached by descriptors: an error of a file below `folder` is one of the host."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and Path(error.filename).is_relative_to(folder):
            raise
        if error.errno == errno.EIO:
            raise access.io_error(f"a file system of the guest failed: {error}") from error
        raise MigrationFailed(
            "guest-damaged",
            f"a file system of the guest is not usable: {error}",
            hint="Check it in the guest (fsck), shut the guest down cleanly, then export it again",
            kind=Kind.PERMANENT,
        ) from error


def _with_boot_disk(bench: Bench, plan: Plan, guest: Guest) -> Guest:
    """The guest with the disk that its machine boots from. Data disks may have no boot loader at all."""
    found = decide_boot_disk(plan.layout, plan.firmware, guest.system_disks)
    if guest.family == "none":
        return guest.with_changes(boot_disk=found.number)
    warnings = tuple(map(warning, found.warnings))
    for text in warnings:
        bench.ctx.warn(text)
    return guest.with_changes(boot_disk=found.number, warnings=(*warnings, *guest.warnings))


def repair_disks(disks: GuestDisks) -> Guest:
    """Raises MigrationFailed as `repair` does."""
    with disks.ctx.step(LOOKING if disks.migration.guest == "auto" else LEAVING):
        found = find_guest(disks)
    guest = found.repair()
    replay = "will be replayed, which changes it" if disks.migration.dry_run else "was replayed, which changed it"
    replayed = tuple(
        warning(
            f"{describe(volume)}: its journal {replay}: it was in use when the disk was copied. Shut the guest down"
            " before its export, if it must be complete."
        )
        for volume in disks.access.replayed
    )
    for text in replayed:
        disks.ctx.warn(text)
    concerns = (*guest.concerns, *note_new_addresses(guest), *note_if_not_booted(guest))
    for concern in concerns:
        disks.ctx.note(concern)
    return guest.with_changes(concerns=concerns, warnings=(*replayed, *guest.warnings)).shortened()
