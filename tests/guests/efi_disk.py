"""A Debian 12 guest on a GPT disk with an EFI system partition, as VMware's UEFI firmware starts it.

A recipe furnishes it with a boot loader. It names its disk `/dev/sda*`, and its initramfs holds VMware's drivers
alone. The partition is filled by mtools: not every kernel has FAT.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.guests import debian12
from tests.guests.debian12 import MIB, REPOSITORY, Part, Plan

DISK_SIZE = 2048 * MIB
PACKAGES = (
    *("linux-image-cloud-amd64", "systemd-sysv", "udev", "initramfs-tools", "login", "passwd", "kmod"),
    *("grub-efi-amd64-bin", "grub2-common", "shim-signed", "grub-efi-amd64-signed", "systemd-boot", "binutils"),
)
"""Of every recipe, so that they share what takes longest."""
CONSOLE = "console=tty0 console=ttyS0,115200"
FSTAB = "/dev/sda2 / ext4 errors=remount-ro 0 1\n/dev/sda1 /boot/efi vfat umask=0077,nofail 0 1\n"


@dataclass(frozen=True)
class Root:
    """The guest's mounted files. What lies in /boot/efi becomes the EFI system partition."""

    path: Path
    uuid: str
    """Of the root file system."""

    def run(self, *argv: str, stdin: str | None = None, **environment: str) -> str:
        """A program of the guest, in the guest."""
        return debian12._run("chroot", self.path, *argv, stdin=stdin, **environment)

    def write(self, name: str, text: str) -> None:
        path = self.path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def copy(self, source: str, target: str) -> None:
        self.write(target, "")
        (self.path / target.lstrip("/")).write_bytes((self.path / source.lstrip("/")).read_bytes())

    @property
    def kernel(self) -> str:
        (version,) = (path.name for path in (self.path / "lib/modules").iterdir())
        return version


@dataclass(frozen=True)
class Guest:
    """One recipe of a module, under a name of its own."""

    module: str
    name: str
    furnish: Callable[[Root], None]
    esp_size: int = 64 * MIB

    @property
    def folder(self) -> Path:
        sources = (Path(__file__), Path(debian12.__file__), REPOSITORY / f"{self.module.replace('.', '/')}.py")
        text = b"".join(path.read_bytes() for path in sources)
        return debian12._cache() / f"{self.name}-{hashlib.sha256(text).hexdigest()[:16]}"

    def disk(self) -> Path:
        """The raw disk, read-only; built at the first use."""
        path = self.folder / "disk.raw"
        with debian12._locked(debian12._cache() / "lock"):
            if not path.exists():
                command = ["unshare", "--mount", "--", sys.executable, "-B", "-m", self.module, self.name]
                if os.geteuid() != 0:
                    command = ["sudo", "-n", f"H2K_GUEST_CACHE={debian12._cache()}", *command]
                subprocess.run(command, cwd=REPOSITORY, check=True, stdin=subprocess.DEVNULL)
        return path

    def vmdk(self, folder: Path) -> Path:
        """The disk as a VMDK in `folder`."""
        path = folder / f"{debian12.HOSTNAME}.vmdk"
        debian12._run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", self.disk(), path)
        return path

    def build(self) -> None:
        """As root, in a mount namespace of its own."""
        archive = _base()
        with debian12._finished_at_once(self.folder) as folder, contextlib.ExitStack() as undo:
            raw, place, devices = folder / "disk.raw", folder / "root", folder / "dev"
            esp, root = self._partition(raw)
            for scratch in (place, devices):
                scratch.mkdir()
                undo.callback(scratch.rmdir)
            debian12._mount(undo, devices, "-t", "tmpfs", "tmpfs")
            debian12._make_devices(raw, Plan(root, root), devices)
            debian12._run("mount", "--bind", devices, "/dev")
            undo.callback(debian12._run, "umount", "--lazy", "/dev")
            debian12._mount(undo, place, root.device)
            debian12._free_with_last_mount(root.device)
            debian12._run(
                *("tar", "--extract", "--numeric-owner", "--exclude=./dev/*", "--file", archive, "--directory", place)
            )
            (place / "boot/efi").mkdir()
            debian12._mount(undo, place / "dev", "--bind", devices)
            debian12._mount(undo, place / "proc", "-t", "proc", "proc")
            debian12._mount(undo, place / "sys", "-t", "sysfs", "sysfs")
            debian12._mount(undo, place / "boot/efi", "-t", "tmpfs", "tmpfs")
            guest = Root(place, debian12._uuid(raw, root))
            _settle(guest)
            self.furnish(guest)
            for entry in sorted((place / "boot/efi").iterdir()):
                debian12._run("mcopy", "-s", "-i", f"{raw}@@{esp.offset}", entry, "::/")
            raw.chmod(0o444)

    def _partition(self, raw: Path) -> tuple[Part, Part]:
        with raw.open("wb") as file:
            file.truncate(DISK_SIZE)
        esp = Part("/dev/sda1", MIB, self.esp_size)
        root = Part("/dev/sda2", MIB + self.esp_size, DISK_SIZE - self.esp_size - 2 * MIB)
        lines = [
            f"start={part.offset // 512}, size={part.size // 512}, type={kind}"
            for part, kind in ((esp, "uefi"), (root, "linux"))
        ]
        debian12._run("sfdisk", "--quiet", raw, stdin="label: gpt\n" + "\n".join(lines))
        debian12._run(*debian12.EXT4, "-E", f"offset={root.offset}", raw, f"{root.size // 1024}k")
        debian12._run(
            *("mformat", "-i", f"{raw}@@{esp.offset}", "-F", "-T", str(esp.size // 512), "-h64", "-s32", "::")
        )
        return esp, root


def _base() -> Path:
    """Debian's files as a tar archive, without an initramfs."""
    arguments = ["--variant=apt", f"--include={','.join(PACKAGES)}"]
    arguments += [f"--dpkgopt=path-exclude={pattern}" for pattern in debian12.UNNEEDED]
    folder = debian12._cache() / f"base-{hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]}"
    if not folder.exists():
        with debian12._finished_at_once(folder) as unfinished:
            target = unfinished / "base.tar"
            debian12._run("mmdebstrap", "--mode=root", *arguments, debian12.SUITE, target, INITRD="No")
    return folder / "base.tar"


def _settle(root: Root) -> None:
    root.write("/etc/fstab", FSTAB)
    root.write("/etc/hostname", f"{debian12.HOSTNAME}\n")
    root.write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {debian12.HOSTNAME}\n")
    root.write("/etc/machine-id", f"{hashlib.sha256(root.uuid.encode()).hexdigest()[:32]}\n")
    for unit in debian12.UNTIMELY_UNITS:
        (root.path / "etc/systemd/system" / unit).symlink_to("/dev/null")
    root.run("chpasswd", stdin="root:demo\n")
    root.write("/etc/initramfs-tools/conf.d/modules", "MODULES=list\n")
    root.write("/etc/initramfs-tools/modules", "".join(f"{name}\n" for name in debian12.VMWARE_MODULES))
    root.run("update-initramfs", "-c", "-k", root.kernel)


def main(guests: dict[str, Guest]) -> None:
    parser = argparse.ArgumentParser(description="Build a guest, as root in this mount namespace.")
    parser.add_argument("name", choices=guests)
    guests[parser.parse_args().name].build()
