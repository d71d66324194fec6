"""verify: positive evidence that the repaired image is good."""

from __future__ import annotations

from typing import Literal

from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import DiskImage, Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.model.results import Verdict
from hyper2kvmd.proof.boot import boot
from hyper2kvmd.stages.bench import Bench


def verify(bench: Bench, hardware: Hardware, image: Image, guest: Guest) -> Verdict:
    """Check the images, and boot throwaway overlays of them when the migration asks for that.

    Raises MigrationFailed (`image-damaged`), and what `proof.boot.boot` raises.
    """
    migration, ctx = bench.migration, bench.ctx
    evidence = list(image.evidence)
    with ctx.step("Checking the images"):
        for disk in image.disks:
            _check(disk, image.format)
        if image.format == "qcow2":
            evidence.append("qemu-img check: no corruption, no leaked cluster")
    if guest.changes:
        evidence.append(f"{len(guest.changes)} repairs written and flushed to the guest's file systems")
    if migration.verify != "boot":
        return Verdict(level=migration.verify, evidence=tuple(evidence))
    booted = boot(image, guest, hardware, bench.helper, bench.folder, ctx, keys=bench.keys(), root=bench.migration.root)
    warnings = tuple(str(_doubt(text)) for text in booted.warnings)
    for text in warnings:
        ctx.warn(text)
    return Verdict(
        level="boot",
        evidence=(*evidence, *booted.evidence),
        boot_seconds=booted.seconds,
        console_tail=booted.console_tail,
        warnings=warnings,
    )


def _doubt(fact: str) -> Concern:
    hint = "Compare it with the source machine, and look at the journal of the new one"
    return Concern(code="boot-doubtful", message=fact, hint=hint)


def _check(disk: DiskImage, fmt: Literal["qcow2", "raw"]) -> None:
    size = qemu_img.virtual_size(disk.path, fmt)
    if size != disk.virtual_size:
        raise _damaged(disk, f"its size became {size} bytes instead of {disk.virtual_size}")
    fault = qemu_img.check(disk.path) if fmt == "qcow2" else None
    if fault is not None:
        raise _damaged(disk, fault)


def _damaged(disk: DiskImage, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "image-damaged",
        f"the converted image {disk.path.name} is damaged: {fact}",
        hint="Check the storage of the conversion directory for errors: the next attempt converts again",
        kind=Kind.RETRY,
    )
