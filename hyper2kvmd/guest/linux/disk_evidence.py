"""What a guest's files tell about its disks: fstab, the kernel lines, multipath's bindings."""

from __future__ import annotations

from dataclasses import replace

from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux import cmdline, fstab
from hyper2kvmd.guest.linux.disk_names import multipath_serials, parse
from hyper2kvmd.guest.linux.disk_order import DiskUse, Evidence

KERNEL_LINES = (
    "/boot/grub*/grub.cfg",
    "/boot/grub*/grubenv",
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
    "/boot/loader/entries/*.conf",
    "/boot/efi/loader/entries/*.conf",
    "/efi/loader/entries/*.conf",
    "/boot/efi/EFI/*/grub.cfg",
    "/boot/extlinux/*.conf",
    "/boot/syslinux/*.cfg",
    "/boot/extlinux.conf",
    "/extlinux.conf",
)
BINDINGS = ("/etc/multipath/bindings", "/var/lib/multipath/bindings")
REMOVABLE = ("iso9660", "udf")


def multipath_maps(tree: GuestTree) -> dict[str, str]:
    """The names of the guest's multipath maps, and their WWIDs."""
    return multipath_serials([tree.text_or_empty(path) for path in BINDINGS], tree.text_or_empty("/etc/multipath.conf"))


def evidence_in(tree: GuestTree, evidence: Evidence) -> Evidence:
    """`evidence` with the names of disks in fstab and on kernel lines."""
    maps = multipath_maps(tree)
    uses = [
        DiskUse(name, entry.mount_point, entry.fs_type)
        for entry in fstab.entries(tree.text_or_empty("/etc/fstab"))
        if (name := parse(entry.spec, maps)) and not set(entry.fs_type.split(",")) & set(REMOVABLE)
    ]
    texts = tree.texts(*KERNEL_LINES)
    roots = (name for text in texts for root in cmdline.named_roots(text) if (name := parse(root, maps)))
    return replace(evidence, uses=tuple(uses), root_names=tuple(dict.fromkeys(roots)))
