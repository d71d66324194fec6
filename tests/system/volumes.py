"""Volumes of every nesting, made by the system's own tools, edited through the helper, and looked at by those tools.

Run inside the virtual machine of test_kernel.py: it needs md, device-mapper and their tools.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyper2kvmd.model.disks import DiskImage, Image, Volume
from hyper2kvmd.volumes.layout import read_layout
from tests.support.access import client, client_argv
from tests.support.disks import FileReader, empty_disk, loop, sh
from tests.support.host import MIB, USER, command
from tests.support.kernel import Kernel, until_clean

KEY = "correct horse"
UUID = "6d3b4a0e-1111-4222-8333-123456789abc"
SIZE = 80
"""MiB of each of the two disks; their one partition begins at 1 MiB."""


PBKDF2 = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
ARGON2 = ("--pbkdf", "argon2id", "--pbkdf-memory", "32768", "--pbkdf-force-iterations", "4")


@dataclass(frozen=True)
class Layers:
    """What the system's tools set up on two partitions, layer on layer; `stack` takes it down. Each returns devices."""

    stack: ExitStack
    devices: list[str]
    key: Path

    def new_md(self, metadata: str) -> list[str]:
        argv = ("mdadm", "--create", "/dev/md7", "--run", "--level=1", "--raid-devices=2", f"--metadata={metadata}")
        sh(*argv, "--homehost=guest", *self.devices)
        self.stack.callback(sh, "mdadm", "--stop", "/dev/md7")
        subprocess.run(["mdadm", "--wait", "/dev/md7"], check=False, capture_output=True)
        return ["/dev/md7"]

    def md(self) -> list[str]:
        sh("mdadm", "--assemble", "/dev/md7", *self.devices)
        self.stack.callback(sh, "mdadm", "--stop", "/dev/md7")
        told = sh("mdadm", "--detail", "/dev/md7")
        assert "State : clean" in told and "Active Devices : 2" in told, told
        return ["/dev/md7"]

    def new_luks(self, devices: list[str], *options: str) -> list[str]:
        sh("cryptsetup", "-q", "luksFormat", *options, "--key-file", self.key, devices[0])
        return self.luks(devices)

    def luks(self, devices: list[str]) -> list[str]:
        sh("cryptsetup", "open", "--key-file", self.key, devices[0], "guest-clear")
        self.stack.callback(sh, "cryptsetup", "close", "guest-clear")
        return ["/dev/mapper/guest-clear"]

    def new_lvm(self, devices: list[str], *options: str) -> list[str]:
        for device in devices:
            sh("pvcreate", "-q", "-y", device)
        sh("vgcreate", "-q", "guest", *devices)
        self.stack.callback(sh, "vgchange", "-q", "-an", "guest")
        sh("lvcreate", "-q", "-y", "-n", "root", "-L", "32M", *options, "guest")
        while "raid1" in options and sh("lvs", "--noheadings", "-o", "sync_percent", "guest").strip() != "100.00":
            subprocess.run(["sleep", "0.1"], check=True)
        return ["/dev/guest/root"]

    def lvm(self, *_: list[str]) -> list[str]:
        """On what was set up before it."""
        sh("vgchange", "-q", "-ay", "guest")
        self.stack.callback(sh, "vgchange", "-q", "-an", "guest")
        sh("udevadm", "settle")
        return ["/dev/guest/root"]


@dataclass(frozen=True)
class Kind:
    """How a volume is made, and found again."""

    make: Callable[[Layers], list[str]]
    find: Callable[[Layers], list[str]]


def lvm_in_luks(*options: str) -> Kind:
    return Kind(lambda on: on.new_lvm(on.new_luks(on.devices, *options)), lambda on: on.lvm(on.luks(on.devices)))


KINDS = {
    "striped LV": Kind(lambda on: on.new_lvm(on.devices, "-i2", "-I64k"), Layers.lvm),
    "RAID 1 LV": Kind(lambda on: on.new_lvm(on.devices, "--type", "raid1", "-m1"), Layers.lvm),
    "md 0.90": Kind(lambda on: on.new_md("0.90"), Layers.md),
    "md 1.0": Kind(lambda on: on.new_md("1.0"), Layers.md),
    "md 1.1": Kind(lambda on: on.new_md("1.1"), Layers.md),
    "LVM on md": Kind(lambda on: on.new_lvm(on.new_md("1.2")), lambda on: on.lvm(on.md())),
    "LVM in LUKS1": lvm_in_luks("--type", "luks1", *PBKDF2[2:]),
    "LVM in LUKS1, CBC": lvm_in_luks("--type", "luks1", "-c", "aes-cbc-essiv:sha256", "-s", "256", *PBKDF2[2:]),
    "LVM in LUKS2": lvm_in_luks("--type", "luks2", *ARGON2),
    "LVM in LUKS2, 4096": lvm_in_luks("--type", "luks2", "--sector-size", "4096", *PBKDF2),
    "LUKS in a striped LV": Kind(
        lambda on: on.new_luks(on.new_lvm(on.devices, "-i2"), "--type", "luks2", *PBKDF2), lambda on: on.luks(on.lvm())
    ),
    "LVM in LUKS on md": Kind(
        lambda on: on.new_lvm(on.new_luks(on.new_md("1.2"), "--type", "luks2", *PBKDF2)),
        lambda on: on.lvm(on.luks(on.md())),
    ),
}


# ---------------------------------------------------------------- the guest


@pytest.fixture(scope="module", autouse=True)
def nothing_assembles_by_itself() -> None:
    Path("/etc/mdadm/mdadm.conf").write_text("AUTO -all\n")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY)
    return path


@contextmanager
def partitions(disks: list[Path], key: Path) -> Iterator[Layers]:
    with ExitStack() as stack:
        devices = [stack.enter_context(loop(disk, offset=MIB, length=(SIZE - 2) * MIB)) for disk in disks]
        sh("udevadm", "settle")
        stack.callback(sh, "udevadm", "settle")
        yield Layers(stack, devices, key)


@contextmanager
def mounted(device: str, where: Path) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    command("mount", device, where)
    try:
        yield where
    finally:
        command("umount", where)


def make_guest(folder: Path, key: Path, kind: Kind) -> list[Path]:
    disks = [empty_disk(folder / f"disk{number}.raw", SIZE) for number in (1, 2)]
    for disk in disks:
        sh("sfdisk", "-q", disk, stdin=f"label: gpt\nstart=2048, size={(SIZE - 2) * 2048}\n")
    with partitions(disks, key) as layers:
        (device,) = kind.make(layers)
        sh("mkfs.ext4", "-q", "-U", UUID, device)
        with mounted(device, folder / "look") as root:
            (root / "etc").mkdir()
            (root / "etc/fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")
            shutil.copy("/bin/true", root / "etc/program")
    for disk in disks:
        shutil.chown(disk, USER, USER)
    return disks


def image_of(disks: list[Path], form: str) -> Image:
    """The machine's disks, raw or as QCOW2 beside them."""
    readers = [FileReader(disk) for disk in disks]
    layout = read_layout(readers, [b"wrong", KEY.encode() + b"\n"])
    for reader in readers:
        reader.close()
    paths = disks
    if form == "qcow2":
        paths = [disk.with_suffix(".qcow2") for disk in disks]
        for disk, path in zip(disks, paths, strict=True):
            command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, path)
            shutil.chown(path, USER, USER)
    images = tuple(DiskImage(path=path, virtual_size=SIZE * MIB, file_bytes=0) for path in paths)
    return Image.model_validate({"disks": images, "format": form, "layout": layout})


def root_of(image: Image) -> Volume:
    (root,) = (volume for volume in image.layout.volumes if volume.uuid == UUID)
    assert root.content == "ext4" and root.obstacle is None
    return root


def legs_are_the_same(disks: list[Path], root: Volume) -> None:
    for stretch in root.stretches:
        if stretch.kind == "mirror":
            held = set()
            for leg in stretch.legs:
                with disks[leg.disk].open("rb") as file:
                    file.seek(leg.offset)
                    held.add(file.read(leg.length))
            assert len(held) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_an_edit_is_found_by_the_systems_own_tools(
    installed_helper: tuple[str, ...], service_folder: Path, key: Path, kind: str, form: str
) -> None:
    disks = make_guest(service_folder, key, KINDS[kind])
    image = image_of(disks, form)
    status, said = client("edit", image, installed_helper, "wrong", KEY)
    assert (status, said.get("done")) == (0, True), said
    assert Kernel.now().clean, Kernel.now()
    if form == "qcow2":
        for disk in disks:
            command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk.with_suffix(".qcow2"), disk)
    legs_are_the_same(disks, root_of(image))
    with partitions(disks, key) as layers:
        (device,) = KINDS[kind].find(layers)
        sh("e2fsck", "-fn", device)
        with mounted(device, service_folder / "look") as root:
            assert (root / "etc/fstab").read_text() == "/dev/sda1 / ext4 defaults 0 1\n# edited\n"
            assert (root / "etc/new").read_bytes() == b"n" * 100_000
    again = image_of(disks, "raw")
    assert root_of(again).stretches == root_of(image).stretches


def test_a_container_without_its_key_is_not_mounted(
    installed_helper: tuple[str, ...], service_folder: Path, key: Path
) -> None:
    image = image_of(make_guest(service_folder, key, KINDS["LVM in LUKS2"]), "raw")
    status, said = client("edit", image, installed_helper, "wrong")
    assert (status, said["code"]) == (1, "volume-locked"), said
    assert Kernel.now().clean


@pytest.mark.parametrize("kind", ["LVM on md", "LVM in LUKS on md"])
def test_a_killed_caller_leaves_no_mapping(
    installed_helper: tuple[str, ...], service_folder: Path, key: Path, kind: str
) -> None:
    image = image_of(make_guest(service_folder, key, KINDS[kind]), "qcow2")
    argv = client_argv("hold", image, installed_helper, KEY)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["holding"]
        try:
            listed = sh("dmsetup", "ls")
            assert listed.count("h2k-") == (2 if "LUKS" in kind else 1), listed
        finally:
            os.kill(pid, signal.SIGKILL)
    assert until_clean(), Kernel.now()
    assert "h2k-" not in sh("dmsetup", "ls")


def test_an_array_that_was_left_dirty_is_refused(service_folder: Path, key: Path) -> None:
    """One member goes on alone, then comes back: its superblock tells."""
    disks = make_guest(service_folder, key, KINDS["md 1.0"])
    with partitions(disks[:1], key) as layers:
        sh("mdadm", "--assemble", "--run", "/dev/md7", *layers.devices)
        layers.stack.callback(sh, "mdadm", "--stop", "/dev/md7")
        with mounted("/dev/md7", service_folder / "look") as root:
            (root / "etc/alone").write_text("alone\n")
    (array,) = (volume for volume in image_of(disks, "raw").layout.volumes if volume.kind == "md")
    assert array.stretches == ()
    assert array.obstacle == "its members differ: one of them is out of date"


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_the_hosts_own_lvm_does_not_notice(
    installed_helper: tuple[str, ...], service_folder: Path, key: Path, form: str
) -> None:
    """The host has a volume group of the same name and UUIDs as the guest that is mounted meanwhile."""
    disks = make_guest(service_folder, key, KINDS["striped LV"])
    host = service_folder / "host"
    host.mkdir()
    with partitions([Path(shutil.copy(disk, host)) for disk in disks], key) as layers:
        layers.lvm()
        argv = client_argv("hold", image_of(disks, form), installed_helper)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            pid = json.loads(process.stdout.readline())["holding"]
            try:
                for argv in (["pvs"], ["vgs"], ["lvs"], ["lvcreate", "-y", "-L", "4M", "-n", f"new{form}", "guest"]):
                    done = subprocess.run(argv, capture_output=True, text=True, close_fds=True)
                    assert (done.returncode, done.stderr) == (0, ""), argv
                assert sh("pvs", "--noheadings").count("guest") == 2
            finally:
                os.kill(pid, signal.SIGKILL)
    assert until_clean(), Kernel.now()
