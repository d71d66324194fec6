"""A guest with its own files changed: what a test needs of a healthy guest, or of one that is broken in one place."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyper2kvmd.guest.mounts.access import default_helper
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.host.kvm import Accelerator
from hyper2kvmd.model.disks import DiskImage, Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.model.orders import SpaceNeeded
from hyper2kvmd.progress import Context, Event
from hyper2kvmd.proof.boot import Booted, boot
from hyper2kvmd.volumes.layout import read_layout
from tests.guests.debian12 import Recipe, disk
from tests.support.benches import hardware_for
from tests.support.disks import FileReader
from tests.support.host import looped

GRUB_CFG = "boot/grub/grub.cfg"
HEALTHY = Recipe(broken=False)
BIOS = hardware_for("bios")
LINUX = Guest(family="linux")
MISSING = "00000000-1111-2222-3333-444444444444"


@pytest.fixture
def guest_folder(tmp_path: Path) -> Iterator[Path]:
    """For guests: not kept after the test, as pytest's own folders are."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def image_of(*raws: Path) -> Image:
    """Raw files as the disks of one machine."""
    with contextlib.ExitStack() as stack:
        layout = read_layout([stack.enter_context(contextlib.closing(FileReader(raw))) for raw in raws])
    disks = tuple(
        DiskImage(path=raw, virtual_size=raw.stat().st_size, file_bytes=raw.stat().st_blocks * 512) for raw in raws
    )
    return Image(disks=disks, format="raw", layout=layout)


def altered(recipe: Recipe, folder: Path, *alterations: Callable[[Path], None]) -> Image:
    """A copy of the guest in `folder`, with `alterations` made to it."""
    raw = folder / "guest.raw"
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", disk(recipe), raw], check=True)
    raw.chmod(0o600)
    image = image_of(raw)
    alter(image, *alterations)
    return image


def alter(image: Image, *alterations: Callable[[Path], None]) -> None:
    """Mount the guest's root file system and give it to each of `alterations`."""
    (root,) = (volume for volume in image.layout.volumes if volume.content == "ext4")
    with looped(image.disks[0].path, root.segments[0]) as files:
        for make in alterations:
            make(files)


def mute(root: Path) -> None:
    """As most guests are: nothing on a serial port, and not much on the screen."""
    edit(root / GRUB_CFG, "console=tty0 console=ttyS0,115200", "quiet")


def hide_kernel_lines(root: Path) -> None:
    """Where no configuration that anybody knows holds the kernel line, as with a unified kernel image."""
    shutil.move(root / GRUB_CFG, root / "boot/grub/elsewhere.cfg")
    (root / GRUB_CFG).write_text("configfile /boot/grub/elsewhere.cfg\n")


def drop_initrd(root: Path) -> None:
    lines = (root / GRUB_CFG).read_text().split("\n")
    (root / GRUB_CFG).write_text("\n".join(line for line in lines if not line.strip().startswith("initrd")))


def mount_a_missing_disk(root: Path) -> None:
    with (root / "etc/fstab").open("a") as fstab:
        fstab.write(f"UUID={MISSING} /data ext4 x-systemd.device-timeout=20 0 2\n")


def unit(name: str, script: str, kind: str = "simple", **settings: str) -> Callable[[Path], None]:
    """A service of that Type that multi-user.target wants; `settings` belong to its section [Unit]."""

    def make(root: Path) -> None:
        folder = root / "etc/systemd/system"
        (root / "etc" / name).write_text(f"#!/bin/bash\n{script}\n")
        (root / "etc" / name).chmod(0o755)
        lines = [f"{key}={value}" for key, value in settings.items()]
        text = "\n".join(("[Unit]", *lines, "[Service]", f"Type={kind}", f"ExecStart=/etc/{name}", ""))
        (folder / f"{name}.service").write_text(text)
        (folder / "multi-user.target.wants").mkdir(exist_ok=True)
        (folder / "multi-user.target.wants" / f"{name}.service").symlink_to(f"../{name}.service")

    return make


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text, f"{path} has no {before}"
    path.write_text(text.replace(before, after))


def context(heard: list[Event]) -> Context:
    def admit(_: SpaceNeeded) -> None:
        raise AssertionError("a boot reserves no space")

    return Context(heard.append, admit)


def boot_it(
    image: Image,
    *,
    guest: Guest = LINUX,
    hardware: Hardware = BIOS,
    silence_seconds: float = 200.0,
    accelerator: Accelerator | None = None,
) -> Booted:
    """The proof, in a folder beside the first disk that has to be empty again afterwards."""
    folder = image.disks[0].path.parent / "proof"
    folder.mkdir()
    try:
        helper = Helper(default_helper())
        ctx = context([])
        return boot(
            image, guest, hardware, helper, folder, ctx, silence_seconds=silence_seconds, accelerator=accelerator
        )
    finally:
        folder.rmdir()
