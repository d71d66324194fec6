"""Repair: make the guest in the converted image boot on KVM, offline, without running any of its programs."""

from __future__ import annotations

from hyper2kvmd.booting import decide_boot_disk
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.choice import find_guest
from hyper2kvmd.guest.family import GuestDisks, describe
from hyper2kvmd.guest.mounts import access
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.stages.bench import Bench


def repair(bench: Bench, plan: Plan, image: Image) -> Guest:
    """Find the guest in `image` and repair it; returns its description with the changes.

    Raises MigrationFailed: as its family and `Access.mount` do, and `guest-damaged` for a file system that fails while
    it is read.
    """
    try:
        with access.open_image(image, bench.helper, bench.folder, bench.keys()) as opened:
            disks = GuestDisks(
                opened,
                image.layout,
                bench.migration,
                bench.ctx,
                plan.firmware,
                nics=plan.machine.nics,
                identities=plan.identities,
            )
            return _with_boot_disk(bench, plan, repair_disks(disks))
    except OSError as error:
        raise MigrationFailed(
            "guest-damaged",
            f"a file system of the guest is not usable: {error}",
            hint="Check it in the guest (fsck), shut the guest down cleanly, then export it again",
            kind=Kind.PERMANENT,
        ) from error


def _with_boot_disk(bench: Bench, plan: Plan, guest: Guest) -> Guest:
    """The guest with the disk that its machine boots from. Data disks without a system need none."""
    if guest.family == "none":
        return guest
    found = decide_boot_disk(plan.layout, plan.firmware, guest.system_disks)
    for warning in found.warnings:
        bench.ctx.warn(warning)
    return guest.with_changes(boot_disk=found.number, warnings=(*found.warnings, *guest.warnings))


def repair_disks(disks: GuestDisks) -> Guest:
    """Raises MigrationFailed as `repair` does."""
    with disks.ctx.step("Looking for the operating system"):
        found = find_guest(disks)
    guest = found.repair()
    replayed = tuple(
        f"{describe(volume)}: its journal was replayed, which changed it: it was in use when the disk was copied"
        for volume in disks.access.replayed
    )
    for warning in replayed:
        disks.ctx.warn(warning)
    return guest.with_changes(warnings=(*replayed, *guest.warnings)).shortened()
