"""Debian 12 started by systemd-boot, its kernels put on the EFI partition by kernel-install.

`systemd-boot` has entries of type 1: a kernel and an initrd beside them, `root=/dev/sda2` in the entry and in
/etc/kernel/cmdline. `unified-kernel` has one of type 2: everything in one EFI program.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.guests.build import CONSOLE, MIB, Part, Root
from tests.guests.efi_disk import efi_guest

CMDLINE = f"root=/dev/sda2 ro {CONSOLE}"
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
SECTIONS = (
    (".osrel", "/usr/lib/os-release", 0x20000),
    (".cmdline", "/etc/kernel/cmdline", 0x30000),
    (".uname", "/tmp/uname", 0x40000),
    (".linux", "/tmp/linux", 0x2000000),
    (".initrd", "/tmp/initrd", 0x3000000),
)


def type_1(root: Root, _holder: Part) -> None:
    _loader(root)
    (version,) = root.kernels
    root.write({"/etc/kernel/install.conf": "layout=bls"})
    install = ("kernel-install", "add", version, f"/boot/vmlinuz-{version}", f"/boot/initrd.img-{version}")
    root.run(*install, BOOT_ROOT="/boot/efi", KERNEL_INSTALL_BYPASS="")


def type_2(root: Root, _holder: Part) -> None:
    _loader(root)
    (version,) = root.kernels
    shutil.copyfile(root.path / f"boot/vmlinuz-{version}", root.path / "tmp/linux")
    shutil.copyfile(root.path / f"boot/initrd.img-{version}", root.path / "tmp/initrd")
    root.write({"/tmp/uname": version, "/boot/efi/EFI/Linux/.made": ""})
    words = [
        word
        for name, source, address in SECTIONS
        for word in ("--add-section", f"{name}={source}", "--change-section-vma", f"{name}={address:#x}")
    ]
    root.run("objcopy", *words, STUB, f"/boot/efi/EFI/Linux/debian-{version}.efi")
    root.run("rm", "/boot/efi/EFI/Linux/.made", "/tmp/linux", "/tmp/initrd", "/tmp/uname")


def _loader(root: Root) -> None:
    root.write({"/etc/kernel/cmdline": CMDLINE})
    options = ("--no-variables", "--esp-path=/boot/efi", "--make-entry-directory=yes")
    root.run("bootctl", "install", *options, SYSTEMD_RELAX_ESP_CHECKS="1")
    root.write({"/boot/efi/loader/loader.conf": "timeout 0"})
    shutil.rmtree(root.path / "boot/efi/EFI/BOOT")  # as after a copy of EFI/systemd alone


SYSTEMD_BOOT = efi_guest("systemd-boot", Path(__file__), type_1, 128 * MIB)
UNIFIED_KERNEL = efi_guest("unified-kernel", Path(__file__), type_2, 256 * MIB)
