"""Debian 12 started by GRUB from EFI/debian, by a boot entry that stays behind in VMware's firmware variables.

There is no EFI/BOOT: a firmware without that entry finds nothing. `uefi-grub` is GRUB as grub-install makes it
without Secure Boot; `uefi-shim` is Debian's signed chain with shim's fallback, `uefi-shim-bare` the same as older
installers left it: without that fallback.
"""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import Part, Root
from tests.guests.efi_disk import efi_guest

FOLDER = "/boot/efi/EFI/debian"
SIGNED = {
    "shimx64.efi": "/usr/lib/shim/shimx64.efi.signed",
    "mmx64.efi": "/usr/lib/shim/mmx64.efi.signed",
    "grubx64.efi": "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}
FALLBACK = {"fbx64.efi": "/usr/lib/shim/fbx64.efi.signed", "BOOTX64.CSV": "/usr/lib/shim/BOOTX64.CSV"}


def grub(root: Root, holder: Part) -> None:
    _configuration(root)
    core = root.grub_image("x86_64-efi", holder, "/boot/grub", "ext2", "fat")
    root.copy("/" + str(core.relative_to(root.path)), f"{FOLDER}/grubx64.efi")


def shim(root: Root, holder: Part) -> None:
    shim_bare(root, holder)
    for name, source in FALLBACK.items():
        root.copy(source, f"{FOLDER}/{name}")


def shim_bare(root: Root, holder: Part) -> None:
    _configuration(root)
    for name, source in SIGNED.items():
        root.copy(source, f"{FOLDER}/{name}")
    stub = f"search.fs_uuid {holder.uuid} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg"
    root.write({f"{FOLDER}/grub.cfg": stub})


def _configuration(root: Root) -> None:
    (root.path / "boot/grub").mkdir(exist_ok=True)
    root.grub("root=/dev/sda2")


GUESTS = {
    name: efi_guest(name, Path(__file__), furnish)
    for name, furnish in (("uefi-grub", grub), ("uefi-shim", shim), ("uefi-shim-bare", shim_bare))
}
