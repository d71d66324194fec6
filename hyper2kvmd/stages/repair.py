"""Repair: make the guest in the converted image boot on KVM, offline, without running any of its programs."""

from __future__ import annotations

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
            firmware, nics = plan.firmware, plan.machine.nics
            return repair_disks(GuestDisks(opened, image.layout, bench.migration, bench.ctx, firmware, nics))
    except OSError as error:
        raise MigrationFailed(
            "guest-damaged",
            f"a file system of the guest is not usable: {error}",
            hint="Check it in the guest (fsck), shut the guest down cleanly, then export it again",
            kind=Kind.PERMANENT,
        ) from error


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
