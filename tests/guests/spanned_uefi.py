"""Debian 12 as a whole machine has it: UEFI with Debian's signed shim, and a volume group across two disks.

The volume for /srv begins on the first disk and ends on the second. The root volume is on the first disk alone, because
not every test host has a device-mapper to mount it. The card ens192 has a static address. There is no
EFI/BOOT: VMware's firmware has a boot entry for EFI/debian, which stays behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.guests.build import MIB, Disk, Part, Root, make, mount, run
from tests.guests.efi_disk import ESP, PACKAGES
from tests.guests.guest import Guest
from tests.guests.uefi_grub import FOLDER, SIGNED

BOOT, FIRST, SECOND = 192 * MIB, 2048 * MIB, 384 * MIB
"""Sizes of /boot and of the disks."""
SWAP, HEAD, TAIL = 128 * MIB, 64 * MIB, 128 * MIB
"""Sizes of the swap volume, and of the two parts of the volume for /srv."""
GROUP = "vg0"
ADDRESS = "10.20.30.40/24"
INTERFACES = f"""auto lo
iface lo inet loopback

auto ens192
iface ens192 inet static
    address {ADDRESS}"""
LVM = ("--driverloaded", "n", "--config", "backup { backup=0 archive=0 } devices { obtain_device_list_from_udev=0 }")
INACTIVE = ("--activate", "n", "--zero", "n", "--wipesignatures", "n")


@dataclass(frozen=True)
class Stretch:
    """Bytes of a volume on one of the disks."""

    raw: Path
    offset: int
    size: int


def build(disk: Disk) -> None:
    second = disk.second()
    esp, boot, first_pv = disk.partition(
        FIRST, ("/dev/sda1", ESP, "uefi"), ("/dev/sda2", BOOT, "linux"), ("/dev/sda3", 0, "lvm"), label="gpt"
    )
    (second_pv,) = second.partition(SECOND, ("/dev/sdb1", 0, "lvm"), label="gpt")
    found = _volumes({first_pv.device: (disk.raw, first_pv), second_pv.device: (second.raw, second_pv)})
    (in_root,), (in_swap,) = found["root"], found["swap"]
    root = disk.attach(f"/dev/mapper/{GROUP}-root", in_root.offset, in_root.size)
    swap = second.attach(f"/dev/mapper/{GROUP}-swap", in_swap.offset, in_swap.size)
    for part, kind in ((root, "ext4"), (boot, "ext4"), (swap, "swap")):
        make(part, kind)
    with _joined(disk, found["data"]) as data:
        make(data, "ext4")
    where = f"{disk.raw}@@{esp.offset}"
    run("mformat", "-i", where, "-F", "-T", str(esp.size // 512), "-h64", "-s32", "::")
    with disk.root({"/": root, "/boot": boot}) as files, contextlib.ExitStack() as undo:
        place = files.path / "boot/efi"
        place.mkdir()
        mount(undo, place, "-t", "tmpfs", "tmpfs")
        _furnish(files, boot)
        for entry in sorted(place.iterdir()):
            run("mcopy", "-s", "-i", where, entry, "::/")


def _furnish(files: Root, boot: Part) -> None:
    volume = f"/dev/mapper/{GROUP}"
    files.settle(
        f"{volume}-root / ext4 errors=remount-ro 0 1",
        "/dev/sda2 /boot ext4 defaults 0 2",
        "/dev/sda1 /boot/efi vfat umask=0077,nofail 0 1",
        f"{volume}-data /srv ext4 defaults 0 2",
        f"{volume}-swap none swap sw 0 0",
    )
    files.write({"/etc/network/interfaces": INTERFACES})
    files.initramfs(f"{volume}-swap", "ext4", "dm_mod")
    (files.path / "boot/grub").mkdir(exist_ok=True)
    files.grub(f"root={volume}-root", f"resume={volume}-swap")
    for name, source in SIGNED.items():
        files.copy(source, f"{FOLDER}/{name}")
    stub = f"search.fs_uuid {boot.uuid} root\nset prefix=($root)'/grub'\nconfigfile $prefix/grub.cfg"
    files.write({f"{FOLDER}/grub.cfg": stub})


def _volumes(holders: dict[str, tuple[Path, Part]]) -> dict[str, list[Stretch]]:
    """The volumes of a new group, each as its stretches in order: metadata only, so it needs no device-mapper."""
    first, second = holders
    with contextlib.ExitStack() as locks:
        for name in holders:  # systemd-udevd leaves a locked device alone: no activation on the host
            fcntl.flock(locks.enter_context(Path(name).open("rb")), fcntl.LOCK_EX)
        return _stretches(first, second, holders)


def _stretches(first: str, second: str, holders: dict[str, tuple[Path, Part]]) -> dict[str, list[Stretch]]:
    devices = ("--devices", f"{first},{second}")
    run("pvcreate", *LVM, *devices, first, second)
    run("vgcreate", *LVM, *devices, GROUP, first, second)
    for name, size, holder in (("swap", SWAP, second), ("data", HEAD, first)):
        run("lvcreate", *LVM, *devices, *INACTIVE, "--name", name, "--size", f"{size}b", GROUP, holder)
    run("lvextend", *LVM, *devices, "--size", f"+{TAIL}b", f"{GROUP}/data", second)
    run("lvcreate", *LVM, *devices, *INACTIVE, "--name", "root", "--extents", "100%PVS", GROUP, first)
    columns = "lv_name,seg_start_pe,pe_start,vg_extent_size,pvseg_start,pvseg_size"
    report = ("--units", "b", "--nosuffix", "--noheadings", "--segments", "-o", columns)
    found: dict[str, list[tuple[int, Stretch]]] = {}
    for device, (raw, part) in holders.items():
        for line in run("pvs", *LVM, *devices, *report, device).splitlines():
            if len(words := line.split()) == 6:  # free space has no volume
                name, at, pe_start, extent, start, count = words
                offset = part.offset + int(pe_start) + int(start) * int(extent)
                found.setdefault(name, []).append((int(at), Stretch(raw, offset, int(count) * int(extent))))
    return {name: [stretch for _, stretch in sorted(some, key=lambda one: one[0])] for name, some in found.items()}


@contextlib.contextmanager
def _joined(disk: Disk, stretches: list[Stretch]) -> Iterator[Part]:
    """The volume as one part, in a file of its own whose bytes get to the disks at the end of the block."""
    whole = disk.raw.with_name("whole.img")
    with whole.open("wb") as file:
        file.truncate(sum(stretch.size for stretch in stretches))
    spare = disk.second()
    spare.raw = whole
    yield spare.attach(f"/dev/mapper/{GROUP}-data", 0, whole.stat().st_size)
    os.sync()  # the block device is still open
    with whole.open("rb") as source:
        for stretch in stretches:
            with stretch.raw.open("r+b") as target:
                _copy(source, target, stretch)
    whole.unlink()


def _copy(source: BinaryIO, target: BinaryIO, stretch: Stretch) -> None:
    for at in range(0, stretch.size, MIB):
        chunk = source.read(min(MIB, stretch.size - at))
        if any(chunk):
            target.seek(stretch.offset + at)
            target.write(chunk)


GUEST = Guest("spanned-uefi", Path(__file__), build, (*PACKAGES, "lvm2", "ifupdown", "iproute2"))
