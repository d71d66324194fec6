"""Chooses one of several Linux roots: the one that the migration names, else the one that the boot loader starts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.family import describe
from hyper2kvmd.guest.files.fat_root import FatRoot
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux import cmdline
from hyper2kvmd.guest.linux.boot_menu import default_entry
from hyper2kvmd.guest.linux.devices import Devices
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.volumes.fat import FatVolume

Root = tuple[Volume, str]
"""A volume, and the subvolume in it that is the root; "" for the whole volume."""
SUBVOLUME = ", subvolume "
MENUS = ("grub*/grub.cfg", "grub/menu.lst", "grub/grub.conf", "extlinux/*.conf", "syslinux/*.cfg", "extlinux.conf")
ENTRIES = ("loader/entries/*.conf",)
STUBS = ("EFI/*/grub.cfg",)
MAX_ENVIRONMENTS = 8
UUID = re.compile(r"[0-9A-Fa-f]+(?:-[0-9A-Fa-f]+)+")
ROOT_FLAGS = re.compile(r"rootflags=(?:(?!rootflags=)\S)*?subvol=/?([^\s,\"']+)")


def choose_root(access: Access, layout: Layout, roots: Sequence[Root], asked: str | None) -> Root:
    """Raises MigrationFailed: `guest-ambiguous`, `root-unknown`."""
    if asked is not None:
        return _asked(layout, roots, asked)
    if len(roots) == 1:
        return roots[0]
    started = set(_started(access, layout, roots))
    if len(started) == 1:
        return started.pop()
    names = ", ".join(describe(volume) + (f"{SUBVOLUME}{folder}" if folder else "") for volume, folder in roots)
    raise MigrationFailed(
        "guest-ambiguous",
        f"the disks hold several Linux systems, and the boot loader does not show which one is used: {names}",
        hint=f"Choose one in the migration file: {' or '.join(f'root: {_key(layout, root)}' for root in roots)}",
    )


def _key(layout: Layout, root: Root) -> str:
    """What `root:` needs for this root."""
    volume, folder = root
    uuid = f"UUID={volume.uuid}"
    name = uuid if volume.uuid and Devices(layout).find(uuid) == volume else volume.name
    return f'"{name}{SUBVOLUME}{folder}"' if folder or "," in name else name


def _asked(layout: Layout, roots: Sequence[Root], asked: str) -> Root:
    name, _, folder = asked.partition(SUBVOLUME)
    volume = next((one for one in layout.volumes if one.name == name), None) or Devices(layout).find(name)
    found = [root for root in roots if root[0] == volume and folder in ("", root[1])]
    if len(found) == 1:
        return found[0]
    listed = " or ".join(f"root: {_key(layout, root)}" for root in roots)
    raise MigrationFailed(
        "root-unknown",
        f"root: {asked} is {'several Linux systems' if found else 'no Linux system'} of these disks",
        hint=f"Write {listed}" if roots else "Remove the key root: no Linux system was found",
        kind=Kind.PERMANENT,
    )


def _started(access: Access, layout: Layout, roots: Sequence[Root]) -> Iterator[Root]:
    """The roots that the default entries of all boot loaders start."""
    named: dict[Volume, list[Root]] = {}
    searched: set[str] = set()
    for volume in layout.volumes:
        if volume.content not in (*FILE_SYSTEMS, "vfat") or volume.obstacle or not volume.stretches:
            continue
        folders = ["", *(f"/{folder}/boot" if folder else "/boot" for one, folder in roots if one == volume)]
        try:
            with _opened(access, volume) as tree:
                lines = (line for folder in folders for line in _default_lines(tree, folder))
                named[volume] = [root for line in lines if (root := _named(layout, roots, line))]
                searched |= {uuid.lower() for text in tree.texts(*STUBS) for uuid in _searched(text)}
        except MigrationFailed as failure:
            if failure.kind is Kind.RETRY:
                raise
    loaders = {volume for volume in named if (volume.uuid or "").lower() in searched}
    for volume, found in named.items():
        if len(loaders) != 1 or volume in loaders:
            yield from found


def _named(layout: Layout, roots: Sequence[Root], line: str) -> Root | None:
    """The root that a kernel line names."""
    devices = Devices(layout)
    for spec in cmdline.named_roots(line):
        flags = ROOT_FLAGS.search(line)
        found = [root for root in roots if root[0] == devices.find(spec)]
        if len(found) > 1 and flags:
            found = [root for root in found if root[1] == flags[1]]
        return found[0] if len(found) == 1 else None
    return None


def _default_lines(tree: GuestTree, boot: str) -> Iterator[str]:
    """The texts of the entries that start by themselves. Entries of type 1 all count: which is newest is unclear."""
    environment = "\n".join(islice(tree.texts(f"{boot}/grub*/grubenv"), MAX_ENVIRONMENTS))
    for text in tree.texts(*(f"{boot}/{pattern}" for pattern in MENUS)):
        yield default_entry(text, environment)
    yield from tree.texts(*(f"{boot}/{pattern}" for pattern in ENTRIES))
    yield environment  # `kernelopts` of Red Hat


def _searched(text: str) -> Iterator[str]:
    """The UUIDs of the file systems that a grub.cfg searches for, one a line at most."""
    for line in text.split("\n"):
        command, *words = line.split() or [""]
        if command == "search" and "--fs-uuid" in words:
            words = words[words.index("--fs-uuid") + 1 :]
        elif command != "search.fs_uuid":
            continue
        yield from [word for word in words if UUID.fullmatch(word)][:1]


@contextmanager
def _opened(access: Access, volume: Volume) -> Iterator[GuestTree]:
    """The files of a volume. Raises MigrationFailed as `access` does."""
    if volume.content == "vfat":
        with access.blocks(volume, read_only=True) as blocks:
            yield GuestTree({"/": FatRoot(FatVolume(blocks))})
        return
    with access.mount(volume, read_only=True) as handle:
        yield GuestTree({"/": ConfinedRoot(handle)})
