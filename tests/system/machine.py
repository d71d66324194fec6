"""A virtual machine with Debian's own kernel, which has NBD, device-mapper and md; KVM is not needed.

Its root is built once (mmdebstrap, kept in .cache/system); this checkout and the running Python's packages are copied
into it each time. Needs root, and the network once.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from hyper2kvmd.host.kvm import OPTIONS
from tests.support.host import REPOSITORY, command
from tests.system.emulator import emulating

SECONDS = 3600
"""For all tests of a machine, emulated on a busy host."""
ROOT = REPOSITORY / ".cache" / "system" / "rootfs"
PACKAGES = (
    "linux-image-cloud-amd64 python3 sudo qemu-utils qemu-system-common libnbd-bin fuse3 e2fsprogs xfsprogs "
    "btrfs-progs dosfstools lvm2 mdadm cryptsetup-bin fdisk kmod udev util-linux procps iproute2 systemd "
    "apparmor qemu-system-x86 libvirt-clients zstd lz4"
)
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/opt/packages HOME=/root LC_ALL=C.UTF-8
if [ $$ = 1 ]; then
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm
    ip link set lo up; hostname machine; echo 127.0.0.1 localhost machine > /etc/hosts
    /lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
    modprobe loop; modprobe fuse
fi
cd /opt/checkout
python3 -m pytest -p no:cacheprovider -v --color=no --tb=short {tests} > /dev/ttyS0 2>&1
echo "OUTCOME $?" > /dev/ttyS0
sync; echo o > /proc/sysrq-trigger; sleep 60
"""


TESTS_UNIT = """[Unit]
Description=Tests
[Service]
Type=oneshot
ExecStart=/opt/init
"""


def checked_inside(tests: str, folder: Path, *disks: Path, systemd: bool = False) -> str:
    """What pytest says of `tests` (its arguments) in the machine, whose scratch lies in `folder`; raw `disks` are its
    /dev/vdb and on. With `systemd`, the tests run as a service of it; without, they are all that runs there. Raises
    AssertionError when one of them fails, or QEMU does.
    """
    boot = ROOT / "boot"
    own = "/lib/systemd/systemd systemd.unit=tests.service systemd.firstboot=off systemd.show_status=0"
    start = own if systemd else "/opt/init"
    drives = [f"file={disk},format=raw,if=virtio,cache=unsafe" for disk in (_root_disk(folder, tests), *disks)]
    argv: list[str | Path] = [
        *("qemu-system-x86_64", *OPTIONS["tcg"], "-m", "2048"),
        *("-kernel", next(boot.glob("vmlinuz-*")), "-initrd", next(boot.glob("initrd.img-*"))),
        *("-append", f"root=/dev/vda rw console=ttyS0 panic=-1 loglevel=1 init={start}"),
        *(word for drive in drives for word in ("-drive", drive)),
        *("-display", "none", "-nic", "none", "-no-reboot"),
    ]
    with tempfile.TemporaryDirectory() as short, emulating(argv, Path(short, "monitor"), folder) as emulator:
        emulator.wait(SECONDS)
    said = emulator.console.read_text(errors="replace")
    assert "OUTCOME 0" in said, said[-8000:]
    return said


def _root_disk(folder: Path, tests: str) -> Path:
    """A disk with the machine's root, this checkout in it."""
    made_of = ROOT.with_suffix(".packages")
    if not ROOT.exists() or not made_of.exists() or made_of.read_text() != PACKAGES:
        shutil.rmtree(ROOT, ignore_errors=True)
        ROOT.parent.mkdir(parents=True, exist_ok=True)
        building = ROOT.with_suffix(".partial")
        shutil.rmtree(building, ignore_errors=True)
        subprocess.run(
            ["mmdebstrap", "--variant=apt", f"--include={PACKAGES.replace(' ', ',')}", "bookworm", building],
            check=True,
            timeout=900,
        )
        building.rename(ROOT)
        made_of.write_text(PACKAGES)
    opt = ROOT / "opt"
    shutil.rmtree(opt)
    copied = {
        f"checkout/{part}": REPOSITORY / part for part in ("hyper2kvmd", "tests", "sudoers.d", "systemd", "packaging")
    }
    copied["packages"] = Path(sysconfig.get_path("purelib"))
    for name, source in copied.items():
        shutil.copytree(source, opt / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    shutil.copy(REPOSITORY / "pyproject.toml", opt / "checkout")
    (opt / "init").write_text(INIT.format(tests=tests))
    (opt / "init").chmod(0o755)
    (ROOT / "etc/systemd/system/tests.service").write_text(TESTS_UNIT)
    disk = folder / "root.raw"
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    command("mkfs.ext4", "-q", "-F", "-d", ROOT, disk)
    return disk
