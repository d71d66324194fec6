"""Every file of a guest that selects network cards, and their combined contents."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux.network import (
    ifcfg,
    ifupdown,
    kernel_line,
    keyfile,
    netplan,
    networkd,
    udev,
)
from hyper2kvmd.guest.linux.network.selector import Selector, Visit

MAX_FILES = 512
"""Files of one format; further ones are not read."""
RULES = ("/lib/udev/rules.d", "/usr/lib/udev/rules.d")
COMMAND_LINES = (
    "/boot/grub*/grub.cfg",
    "/boot/efi/EFI/*/grub.cfg",
    "/boot/grub*/grubenv",
    "/boot/grub/*.conf",
    "/boot/grub/menu.lst",
    "/boot/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/boot/loader/entries/*.conf",
    "/efi/loader/entries/*.conf",
    "/boot/efi/loader/entries/*.conf",
    "/etc/kernel/cmdline",
    "/etc/dracut.conf",
    "/etc/dracut.conf.d/*.conf",
    "/etc/default/grub",
    "/etc/default/grub.d/*.cfg",
)
INITRAMFS_SETTINGS = ("/etc/initramfs-tools/initramfs.conf", "/etc/initramfs-tools/conf.d/*")
DRACUT_MARKS = ("/etc/dracut.conf.d", "/etc/dracut.conf", "/usr/lib/dracut/modules.d", "/usr/share/dracut/modules.d")
"""Paths of dracut itself: initramfs-tools of Debian 13 also has its `dracut-install` below /usr/lib/dracut."""


@dataclass(frozen=True)
class Format:
    """One format: how its files are found and visited."""

    files: Callable[[GuestTree], list[str]]
    visit: Visit


@dataclass(frozen=True)
class Survey:
    selectors: tuple[Selector, ...]
    has_udev: bool
    predictable: bool
    """Whether udev names a card without a rule by its place (`enp1s0`), not by the kernel's name (`eth0`)."""
    early: frozenset[str] = frozenset()
    """Names of cards that the initramfs uses."""
    early_network: bool = False
    """Whether the initramfs needs a network card at all."""
    dracut: bool = False
    """Whether dracut builds the initramfs."""


def _files(*patterns: str) -> Callable[[GuestTree], list[str]]:
    def files(tree: GuestTree) -> list[str]:
        found = {tree.canonical(path): None for pattern in patterns for path in tree.glob(pattern)}
        return [path for path in found if tree.is_file(path)]

    return files


def _ifcfg_files(tree: GuestTree) -> list[str]:
    files = _files("/etc/sysconfig/network-scripts/ifcfg-*", "/etc/sysconfig/network/ifcfg-*")
    return [path for path in files(tree) if ifcfg.is_read(path)]


FORMATS = (
    Format(ifupdown.files, ifupdown.visit),
    Format(_ifcfg_files, ifcfg.visit),
    Format(_files("/etc/NetworkManager/system-connections/*"), keyfile.visit),
    Format(_files("/etc/netplan/*.yaml"), netplan.visit),
    Format(_files("/etc/systemd/network/*.network", "/etc/systemd/network/*.link"), networkd.visit),
    Format(_files("/etc/udev/rules.d/*.rules"), udev.visit),
)


def survey(tree: GuestTree) -> Survey:
    """Read all files that can be read: the repair that visits the same files reports the others."""
    selectors: list[Selector] = []
    for kind in FORMATS:
        for path in kind.files(tree)[:MAX_FILES]:
            with suppress(MigrationFailed):
                kind.visit(path, tree.read_text(path), selectors.append)
    early: list[Selector] = []
    needed = False
    for path in _files(*COMMAND_LINES)(tree)[:MAX_FILES]:
        with suppress(MigrationFailed):
            text = tree.read_text(path)
            kernel_line.visit(path, text, early.append)
            needed |= kernel_line.needs_network(text)
    for path in _files(*INITRAMFS_SETTINGS)(tree)[:MAX_FILES]:
        with suppress(MigrationFailed):
            kernel_line.visit_settings(path, tree.read_text(path), early.append)
    masked = tree.link_target("/etc/udev/rules.d/80-net-setup-link.rules") is not None
    shipped = any(tree.is_file(f"{folder}/80-net-setup-link.rules") for folder in RULES)
    return Survey(
        selectors=(*selectors, *early),
        has_udev=any(tree.is_dir(folder) for folder in ("/lib/udev", "/usr/lib/udev", "/etc/udev")),
        predictable=shipped and not masked and not _named_by_the_kernel(tree),
        early=frozenset(name for selector in early for name in selector.names),
        early_network=needed or bool(early),
        dracut=any(tree.exists(mark) for mark in DRACUT_MARKS),
    )


def _named_by_the_kernel(tree: GuestTree) -> bool:
    """Whether the guest boots with net.ifnames=0. Sources: systemd-udevd.service(8), systemd.net-naming-scheme(7)."""
    for path in (path for pattern in COMMAND_LINES for path in tree.glob(pattern)):
        if tree.is_file(path):
            with suppress(MigrationFailed):
                if re.search(r"(?<![\w.])net\.ifnames=(0|no|false|off)\b", tree.read_text(path)):
                    return True
    return False
