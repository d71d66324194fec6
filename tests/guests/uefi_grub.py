"""Debian 12 started by GRUB from EFI/debian, by a boot entry that stays behind in VMware's firmware variables.

There is no EFI/BOOT: a firmware without that entry finds nothing. `uefi-grub` is GRUB as grub-install makes it
without Secure Boot; `uefi-shim` is Debian's signed chain with shim's fallback, `uefi-shim-bare` the same as older
installers left it: without that fallback.
"""

from __future__ import annotations

from tests.guests.efi_disk import CONSOLE, Guest, Root, main

DRIVERS = ("part_gpt", "ext2", "fat", "normal", "linux", "configfile", "search", "search_fs_uuid", "echo")
FOLDER = "/boot/efi/EFI/debian"
SIGNED = {
    "shimx64.efi": "/usr/lib/shim/shimx64.efi.signed",
    "mmx64.efi": "/usr/lib/shim/mmx64.efi.signed",
    "grubx64.efi": "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}
FALLBACK = {"fbx64.efi": "/usr/lib/shim/fbx64.efi.signed", "BOOTX64.CSV": "/usr/lib/shim/BOOTX64.CSV"}


def grub(root: Root) -> None:
    _configuration(root)
    where = f"search --no-floppy --fs-uuid --set=root {root.uuid}\nset prefix=($root)/boot/grub\n"
    root.write("/boot/grub/early.cfg", where)
    root.write(f"{FOLDER}/.made", "")
    root.run(
        *("grub-mkimage", "--format", "x86_64-efi", "--prefix", "/boot/grub", "--config", "/boot/grub/early.cfg"),
        *("--output", f"{FOLDER}/grubx64.efi", *DRIVERS),
    )
    root.run("rm", f"{FOLDER}/.made")
    root.run("cp", "-r", "/usr/lib/grub/x86_64-efi", "/boot/grub/")


def shim(root: Root) -> None:
    shim_bare(root)
    for name, source in FALLBACK.items():
        root.copy(source, f"{FOLDER}/{name}")


def shim_bare(root: Root) -> None:
    _configuration(root)
    for name, source in SIGNED.items():
        root.copy(source, f"{FOLDER}/{name}")
    stub = f"search.fs_uuid {root.uuid} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
    root.write(f"{FOLDER}/grub.cfg", stub)


def _configuration(root: Root) -> None:
    root.write(
        "/etc/default/grub",
        f'GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX="root=/dev/sda2 {CONSOLE}"\nGRUB_TERMINAL=console\n'
        "GRUB_DISABLE_LINUX_UUID=true\n",
    )
    root.run("mkdir", "-p", "/boot/grub")
    root.run("grub-mkconfig", "--output", "/boot/grub/grub.cfg")


GUESTS = {
    guest.name: guest
    for guest in (
        Guest(__spec__.name, "uefi-grub", grub),
        Guest(__spec__.name, "uefi-shim", shim),
        Guest(__spec__.name, "uefi-shim-bare", shim_bare),
    )
}

if __name__ == "__main__":
    main(GUESTS)
