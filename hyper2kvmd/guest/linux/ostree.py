"""Deployments of ostree: Fedora CoreOS, Silverblue, RHEL for Edge, bootc images.

The root file system holds `/ostree` and `/boot`; each version of the system is a folder below `/ostree/deploy`, with
its own `/etc`, and shares `/var` with the others. Sources: ostree's documentation of deployments and of atomic
upgrades; the Boot Loader Specification.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.linux.root_search import LinuxRoot
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.volumes.superblock import LINUX_FILE_SYSTEMS

DEPLOYMENTS = "/ostree/deploy/*/deploy/*.?*"
ENTRIES = ("/loader/entries/*.conf", "/boot/loader/entries/*.conf")
"""On a volume that is /boot, and on a root with /boot in it."""
KERNEL_LINE = re.compile(r"^options[ \t].*?\bostree=(\S{1,4096})", re.MULTILINE)
VERSION = re.compile(r"^version[ \t]+(\d{1,18})", re.MULTILINE)
TOPS = ("", "root", "@", "@root")
"""Folders of a volume that can hold `/ostree`: its top, or a btrfs subvolume."""
FIRST_BOOT = "ignition.firstboot"


@dataclass(frozen=True)
class _Entry:
    """A boot entry: its volume, whether /boot is a folder of the root, its rank, the link to its deployment."""

    volume: Volume
    inside: bool
    rank: int
    link: str


@dataclass(frozen=True)
class _Sysroot:
    """A volume with deployments below its folder `top`."""

    volume: Volume
    top: str
    deployments: tuple[str, ...]
    chosen: str | None
    """The deployment that the first boot entry names."""


def find_deployment(access: Access, layout: Layout) -> LinuxRoot | None:
    """The deployment that boots next, as a root; None if there is no ostree.

    Raises MigrationFailed (`guest-deployment-unclear`).
    """
    entries = sorted(_entries(access, layout), key=lambda entry: -entry.rank)
    found = [sysroot for volume in _readable(layout) for sysroot in _sysroots(access, volume, entries)]
    if not found:
        return None
    if len(found) > 1:
        raise _unclear(f"{len(found)} volumes hold ostree deployments", "Leave one system on the disks")
    sysroot = found[0]
    chosen = sysroot.chosen or (sysroot.deployments[0] if len(sysroot.deployments) == 1 else None)
    if chosen is None:
        fact = f"{len(sysroot.deployments)} ostree deployments, and no boot entry that names one of them"
        raise _unclear(fact, "Remove old deployments in the guest (ostree admin undeploy)")
    others = [posixpath.basename(path) for path in sysroot.deployments if path != chosen]
    stateroot = posixpath.dirname(posixpath.dirname(chosen))
    folders = [("/var", f"{sysroot.top}{stateroot}/var".lstrip("/"))]
    if not entries or entries[0].inside:
        folders.append(("/boot", f"{sysroot.top}/boot".lstrip("/")))
    return LinuxRoot(
        sysroot.volume,
        f"{sysroot.top}{chosen}".lstrip("/"),
        boot=entries[0].volume if entries and not entries[0].inside else None,
        folders=tuple(folders),
        troubles=tuple(f"ostree deployment {printable(name)}: it does not boot by default" for name in others),
    )


def never_booted(tree: GuestTree) -> list[str]:
    """Warnings about a guest that Ignition has not set up: it would look for its settings on VMware."""
    if not tree.is_file(f"/boot/{FIRST_BOOT}"):
        return []
    fact = "Ignition has not run in this guest, and would look for its configuration on VMware"
    return [f"{fact}. Start the guest once on VMware, or deploy its image for QEMU instead."]


def _readable(layout: Layout) -> list[Volume]:
    return [
        volume
        for volume in layout.volumes
        if volume.content in LINUX_FILE_SYSTEMS and not volume.obstacle and volume.stretches
    ]


def _entries(access: Access, layout: Layout) -> Iterator[_Entry]:
    for volume in _readable(layout):
        with access.mount(volume, read_only=True) as handle:
            tree = GuestTree({"/": ConfinedRoot(handle)})
            for pattern in ENTRIES:
                for text in tree.texts(pattern):
                    if line := KERNEL_LINE.search(text):
                        version = VERSION.search(text)
                        rank = int(version[1]) if version else 0
                        yield _Entry(volume, pattern.startswith("/boot"), rank, line[1])


def _sysroots(access: Access, volume: Volume, entries: list[_Entry]) -> Iterator[_Sysroot]:
    with access.mount(volume, read_only=True) as handle:
        root = ConfinedRoot(handle)
        for top in TOPS if volume.content == "btrfs" else TOPS[:1]:
            if not root.exists(top or "."):
                continue
            with root.folder(top or ".") as folder:
                tree = GuestTree({"/": folder})
                deployments = tuple(path for path in tree.glob(DEPLOYMENTS) if tree.is_dir(f"{path}/usr"))
                if deployments:
                    yield _Sysroot(volume, top, deployments, _chosen(tree, entries, deployments))
                elif tree.is_dir("/state/deploy") and tree.is_dir("/composefs"):
                    fact = f"{volume.name} holds a bootc system on composefs alone, without ostree"
                    raise _unclear(fact, "Deploy its image anew on KVM")


def _chosen(tree: GuestTree, entries: list[_Entry], deployments: tuple[str, ...]) -> str | None:
    return next((target for entry in entries if (target := _target(tree, entry.link)) in deployments), None)


def _target(tree: GuestTree, link: str) -> str | None:
    """None for a link without an end."""
    try:
        return tree.canonical(link)
    except OSError:
        return None


def _unclear(fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("guest-deployment-unclear", f"the guest cannot be repaired: {printable(fact)}", hint=hint)
