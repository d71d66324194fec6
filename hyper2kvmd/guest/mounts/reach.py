"""Determines which volumes this host can mount, and the transport of an image to its kernel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.errors import BrokenInstallation, Kind, MigrationFailed
from hyper2kvmd.findings import Findings
from hyper2kvmd.guest.mounts import rootside
from hyper2kvmd.guest.mounts.rootside import Helper, Probed
from hyper2kvmd.host import run
from hyper2kvmd.model.disks import Volume

FILE_SYSTEMS = {
    "ext2": "ext4",
    "ext3": "ext4",
    "ext4": "ext4",
    "xfs": "xfs",
    "btrfs": "btrfs",
}
"""Volume content to the kernel's name; ext4 mounts its predecessors, and only ext4 id-maps them. FAT and NTFS are not
included: `blocks` serves them on every host."""
LEGS_MAX = 64
FUSE_TOOLS = ("nbdfuse", "fusermount3")
"""Programs that bring a QCOW2 image to a kernel without NBD."""


@dataclass(frozen=True)
class Reach:
    """How this host can mount the requested volumes."""

    transport: Literal["nbd", "fuse"]
    """The transport of a QCOW2 image to the kernel."""
    unmountable: tuple[tuple[Volume, str], ...] = ()
    """Volumes whose file system cannot be mounted here, each with the reason."""


def check_helper(helper: Helper, volumes: tuple[Volume, ...], *, raw: bool = False) -> Reach:
    """Ask the helper what this host can mount, from raw images only or from QCOW2 as well.

    Raises BrokenInstallation if repair cannot work on this host, with the remedy: `helper-unreachable`,
    `tool-missing`, or `transport-missing` if the kernel can read a QCOW2 image through neither NBD nor FUSE; several of
    them as `several-problems`.
    """
    wanted = sorted({FILE_SYSTEMS[volume.content] for volume in volumes if volume.content in FILE_SYSTEMS})
    kernel = rootside.probe(helper, "check", tuple(wanted))
    if not kernel.nbd and not raw:
        check_fuse(kernel)
    mountable = [volume for volume in volumes if volume.content in FILE_SYSTEMS]
    reasons = [(volume, obstacle(volume) or _kernel_obstacle(volume, kernel)) for volume in mountable]
    unmountable = tuple((volume, reason) for volume, reason in reasons if reason is not None)
    return Reach(transport="nbd" if kernel.nbd else "fuse", unmountable=unmountable)


def check_fuse(kernel: Probed) -> None:
    if run.no_new_privileges() and os.geteuid() != 0:
        raise BrokenInstallation(
            "transport-missing",
            "this host's kernel has no NBD, and fusermount3, which mounts QCOW2 images without it, is setuid: the "
            "no_new_privs flag on this process forbids that",
            hint="Load the kernel module nbd (modprobe nbd), or set `out_format: raw` without `verify: boot`, or "
            "run the service without NoNewPrivileges= and what implies it",
        )
    findings = Findings()
    for name in FUSE_TOOLS:
        with findings.noted():
            run.tool(name)
    with findings.noted():
        _check_devices(kernel)
    findings.require_none()


def _check_devices(kernel: Probed) -> None:
    missing = "/dev/fuse" if not os.access("/dev/fuse", os.R_OK | os.W_OK) else "loop devices"
    if missing == "/dev/fuse" or not kernel.loop:
        raise BrokenInstallation(
            "transport-missing",
            f"this host has neither NBD nor {missing}",
            hint="Load the kernel module nbd, or fuse and loop, with modprobe (for a container, on its host)",
        )


def obstacle(volume: Volume) -> str | None:
    """Why no host can mount a volume."""
    if volume.content not in FILE_SYSTEMS:
        return f"{volume.content} is not a supported file system"
    if volume.obstacle or not volume.stretches:
        return volume.obstacle or "its location on the disk is unknown"
    if volume.multi_device:
        return "its file system spans several devices"
    if len(volume.segments) > LEGS_MAX:
        return f"it is scattered over {len(volume.segments)} places"
    if len({stretch.crypt is None for stretch in volume.stretches}) > 1:
        return "only a part of it is encrypted"
    return None


def _kernel_obstacle(volume: Volume, kernel: Probed) -> str | None:
    fstype = FILE_SYSTEMS[volume.content]
    if fstype not in kernel.fstypes:
        return f"this host's kernel has no {fstype}"
    missing = sorted(_targets(volume) - set(kernel.dm))
    if missing:
        return f"this host's kernel has no device-mapper target {missing[0]}, which its layout on the disks needs"
    return None


def _targets(volume: Volume) -> set[str]:
    """The device-mapper targets that its stretches need; none if it is one plain range."""
    crypt = {"crypt" for stretch in volume.stretches if stretch.crypt}
    return {stretch.kind for stretch in volume.stretches} | crypt if crypt or len(volume.segments) > 1 else set()


def unsupported(volume: Volume, reason: str) -> MigrationFailed:
    return MigrationFailed(
        "mount-unsupported",
        f"{volume.name} ({volume.content}) cannot be mounted: {reason}",
        hint="Load the named kernel module, or run the job on a host that has it",
        kind=Kind.OPERATOR,
    )
