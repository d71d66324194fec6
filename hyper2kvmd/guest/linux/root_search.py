"""Finds the volume that is the root of a Linux guest. Source: file-hierarchy(7)."""

from __future__ import annotations

from dataclasses import dataclass

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.family import describe
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.linux import locked
from hyper2kvmd.guest.linux.root_choice import choose_root
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.mounts.reach import obstacle
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.volumes.superblock import LINUX_FILE_SYSTEMS

SUBVOLUMES = ("@", "root", "@rootfs", "@root", "rootfs")
"""Subvolumes of distributions for the root, if it is not the default one."""
HIBERNATED = "swsuspend"


@dataclass(frozen=True)
class LinuxRoot:
    """The place of the guest's root; `subvolume` is a folder of `volume`.

    A `locked` root is in a LUKS container that no key opens: `volume` is its unreadable content, and `boot` the volume
    with its kernels, if that is outside. An ostree deployment is a folder, too: `boot` and `folders` are then what
    the guest mounts without fstab.
    """

    volume: Volume
    subvolume: str = ""
    locked: bool = False
    boot: Volume | None = None
    folders: tuple[tuple[str, str], ...] = ()
    """Further folders of `volume`, by the mount point that they have in an ostree deployment."""
    has_rivals: bool = False
    """Whether the disks hold other Linux roots."""
    troubles: tuple[str, ...] = ()
    """Volumes that could not be searched."""


def find_root(access: Access, layout: Layout, asked: str | None = None) -> LinuxRoot | None:
    """Search every volume that could hold a Linux root, read-only; None if none does. `asked` chooses one of several.

    Raises MigrationFailed: as `choose_root` does for several or a wrong `asked`, `guest-hibernated`; and if none was
    found, the failure to mount a volume.
    """
    _refuse_hibernated(layout)
    looked = _find_roots(access, layout)
    if looked.roots:
        volume, subvolume = choose_root(access, layout, looked.roots, asked)
        closed = tuple(f"{printable(volume.name)}: {volume.obstacle}" for volume in locked.closed(layout))
        rivals = len(looked.roots) > 1
        return LinuxRoot(volume, subvolume, has_rivals=rivals, troubles=(*looked.troubles, *closed))
    if looked.failures:
        raise looked.failures[0]
    return None


def find_locked_root(access: Access, layout: Layout) -> LinuxRoot | None:
    """The locked container, if there is one. Raises MigrationFailed as `locked.find_boot` does."""
    containers = locked.closed(layout)
    return LinuxRoot(containers[0], locked=True, boot=locked.find_boot(access, layout)) if containers else None


@dataclass(frozen=True)
class _Roots:
    roots: tuple[tuple[Volume, str], ...]
    failures: tuple[MigrationFailed, ...]
    troubles: tuple[str, ...]


def _find_roots(access: Access, layout: Layout) -> _Roots:
    roots: list[tuple[Volume, str]] = []
    failures: list[MigrationFailed] = []
    troubles = []
    for volume in layout.volumes:
        if volume.content not in LINUX_FILE_SYSTEMS:
            continue
        if volume.obstacle or not volume.stretches:
            continue
        try:
            with access.mount(volume, read_only=True) as handle:
                roots += [(volume, subvolume) for subvolume in _roots_in(ConfinedRoot(handle), volume)]
        except MigrationFailed as failure:
            if failure.kind is Kind.RETRY:
                raise
            failures.append(failure)
            if obstacle(volume) is None:  # else it is a concern of the plan
                troubles.append(f"{describe(volume)}: {failure.message}")
    return _Roots(tuple(roots), tuple(failures), tuple(troubles))


def _roots_in(root: ConfinedRoot, volume: Volume) -> list[str]:
    """Folders of a mounted volume that are a Linux root; "" is its top, which excludes the others."""
    if is_root(GuestTree({"/": root})):
        return [""]
    found = []
    for name in SUBVOLUMES if volume.content == "btrfs" else ():
        if root.exists(name):
            with root.folder(name) as folder:
                found += [name] if is_root(GuestTree({"/": folder})) else []
    return found


def is_root(tree: GuestTree) -> bool:
    described = any(tree.is_file(path) for path in ("/etc/os-release", "/usr/lib/os-release", "/etc/fstab"))
    return described and tree.is_dir("/etc") and (tree.is_dir("/usr") or tree.is_dir("/lib"))


def _refuse_hibernated(layout: Layout) -> None:
    """The memory image in the swap depends on unchanged file systems: edits would destroy them."""
    for volume in layout.volumes:
        if volume.content == HIBERNATED:
            raise MigrationFailed(
                "guest-hibernated",
                f"the guest is hibernated: {volume.name} holds the image of its memory",
                hint="Start the guest on VMware, shut it down cleanly, then export it again",
            )
