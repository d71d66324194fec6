"""Debian 12 with everything on logical volumes, those on an array of two disks: mdadm.conf lists them by name.

The host's kernel need not know md: the guest's own makes the array, in a machine with VMware's controller. By then
the data lies where the array will have it, on both disks.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.guests.build import MIB, Disk, make, run
from tests.guests.guest import Guest
from tests.guests.installer import CDROM, PACKAGES, SWAP

SIZE = 2560 * MIB
GROUP = "vg0"
DATA_OFFSET = MIB
"""Where an array's data begins in its members."""
MDADM_CONF = """DEVICE /dev/sda* /dev/sdb*
HOMEHOST <system>
MAILADDR root
ARRAY /dev/md0 devices=/dev/sda1,/dev/sdb1"""
MAKE_ARRAY = f"""#!/bin/sh
export PATH=/sbin:/bin:/usr/sbin:/usr/bin
mkdir -p /proc /sys /dev /run/mdadm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in vmw_pvscsi sd_mod raid1; do modprobe $module; done
until test -b /dev/sda1 && test -b /dev/sdb1; do sleep 1; done
mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --assume-clean --metadata=1.2 --bitmap=none \\
    --data-offset={DATA_OFFSET >> 10}K --name=0 --homehost=web01 /dev/sda1 /dev/sdb1 && mdadm --stop /dev/md0
echo o > /proc/sysrq-trigger
sleep 60
"""


def build(disk: Disk) -> None:
    member = disk.partition(SIZE, ("/dev/sda1", 0, "raid"))[0]
    array = disk.attach("/dev/md0", member.offset + DATA_OFFSET, member.size - DATA_OFFSET - MIB)
    root, swap = disk.volumes(array, GROUP, SWAP)
    make(root, "ext4")
    make(swap, "swap")
    boot = disk.raw.with_name("boot")
    with disk.root({"/": root}) as files:
        files.settle(f"/dev/{GROUP}/root / ext4 defaults 0 1", f"/dev/{GROUP}/swap none swap sw 0 0", CDROM)
        files.write({"/etc/mdadm/mdadm.conf": MDADM_CONF})
        files.initramfs(swap.device, "ext4", "dm_mod", "raid1")
        files.grub(f"root={root.device}", f"resume={swap.device}")
        files.boot_by_grub(disk, root, "/boot/grub", "mdraid1x", "lvm", "ext2")
        shutil.copytree(files.path / "boot", boot)
    os.sync()  # the volumes' devices are still open
    second = disk.second()
    run("cp", "--sparse=always", disk.raw, second.raw)
    run("sfdisk", "--quiet", "--disk-id", second.raw, "0x5db10002")
    said = _make_array((disk.raw, second.raw), boot)
    told = run("mdadm", "--examine", second.attach("/dev/sdb1", member.offset, member.size).device)
    if "raid1" not in told or "clean" not in told:
        raise SystemExit(f"no array was made:\n{said}\n{told}")
    shutil.rmtree(boot)


def _make_array(raws: tuple[Path, ...], boot: Path) -> str:
    """Superblocks on both disks, by the kernel and the initramfs in `boot`; what was said on the console."""
    script = boot / "make-array"
    script.write_text(MAKE_ARRAY)
    script.chmod(0o755)
    archive = boot / "make-array.cpio"
    run("cpio", "--quiet", "--create", "--format=newc", f"--directory={boot}", f"--file={archive}", stdin=script.name)
    initrd = boot / "initrd"
    initrd.write_bytes(archive.read_bytes() + next(boot.glob("initrd.img-*")).read_bytes())
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot"]
    argv += ["-kernel", str(next(boot.glob("vmlinuz-*"))), "-initrd", str(initrd)]
    argv += ["-append", "rdinit=/make-array console=ttyS0 panic=-1", "-serial", "stdio", "-device", "pvscsi"]
    for number, raw in enumerate(raws):
        argv += ["-drive", f"file={raw},format=raw,if=none,id=disk{number}", "-device", f"scsi-hd,drive=disk{number}"]
    return run("timeout", "300", *argv)


MENDED = {
    "/etc/fstab",
    "/etc/mdadm/mdadm.conf",
    "/boot/grub/device.map",
    "/boot/initrd.img-*",
    "/etc/initramfs-tools/modules",
}
GUEST = Guest("raid-lvm", Path(__file__), build, (*PACKAGES, "lvm2", "mdadm"), mended=frozenset(MENDED))
