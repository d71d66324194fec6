"""The boundary under Debian's own kernel, which has NBD and device-mapper, in a virtual machine without KVM.

`pytest tests/system` builds the machine's root (mmdebstrap, kept in .cache/system), copies this checkout and the
running Python's packages into it, and runs the integration tests of the boundary there, besides those that are for
this place alone (or what H2K_INSIDE says, as arguments of pytest). Needs root, the network, and about ten minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.integration.host import REPOSITORY, command

ROOT = REPOSITORY / ".cache" / "system" / "rootfs"
PACKAGES = (
    "linux-image-cloud-amd64 python3 sudo qemu-utils qemu-system-common libnbd-bin fuse3 e2fsprogs xfsprogs "
    "btrfs-progs dosfstools lvm2 mdadm cryptsetup-bin fdisk kmod udev util-linux procps iproute2"
)
TESTS = os.environ.get("H2K_INSIDE") or " ".join(
    (
        "tests/system/inside.py tests/system/volumes.py",
        *(f"tests/integration/test_{name}.py" for name in ("access", "export", "helper")),
    )
)
INIT = f"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/opt/packages HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm
ip link set lo up; hostname machine; echo 127.0.0.1 localhost machine > /etc/hosts
/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
modprobe loop; modprobe fuse
cd /opt/checkout
python3 -m pytest -p no:cacheprovider -v --color=no --tb=short {TESTS} > /dev/ttyS0 2>&1
echo "OUTCOME $?" > /dev/ttyS0
sync; echo o > /proc/sysrq-trigger; sleep 60
"""


def root_disk(folder: Path) -> Path:
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
    for part in ("hyper2kvmd", "tests", "sudoers.d"):
        shutil.copytree(REPOSITORY / part, opt / "checkout" / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", opt / "checkout")
    shutil.copytree(sysconfig.get_path("purelib"), opt / "packages", ignore=shutil.ignore_patterns("__pycache__"))
    (opt / "init").write_text(INIT)
    (opt / "init").chmod(0o755)
    disk = folder / "root.raw"
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    command("mkfs.ext4", "-q", "-F", "-d", ROOT, disk)
    return disk


def test_the_boundary_under_debians_kernel(tmp_path: Path) -> None:
    disk = root_disk(tmp_path)
    console = tmp_path / "console"
    boot = ROOT / "boot"
    subprocess.run(
        [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048", "-cpu", "max"),
            *("-kernel", next(boot.glob("vmlinuz-*")), "-initrd", next(boot.glob("initrd.img-*"))),
            *("-append", "root=/dev/vda rw console=ttyS0 init=/opt/init panic=-1 loglevel=1"),
            *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
            *("-display", "none", "-monitor", "none", "-serial", f"file:{console}", "-nic", "none", "-no-reboot"),
        ],
        check=True,
        timeout=1800,
    )
    said = console.read_text(errors="replace")
    assert "OUTCOME 0" in said, said[-8000:]
    assert "H2K_INSIDE" in os.environ or "test_this_kernel_offers_everything PASSED" in said
