"""A btrfs subvolume with the property `ro` has it again after a repair, even if an attempt was killed."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hyper2kvmd.guest.files.file_system import (
    BTRFS_IOC_SUBVOL_GETFLAGS,
    BTRFS_IOC_SUBVOL_SETFLAGS,
    BTRFS_SUBVOL_RDONLY,
)
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.linux.subvolumes import Subvolumes
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.stages.repair import repair_disks
from tests.support.guest_on_disk import FolderAccess, guest_disks, migration, put, simple_layout

OTHER_FLAG = 4


class Killed(BaseException):
    pass


class Kernel:
    """Answers for a btrfs: the flags of the only subvolume."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flags = BTRFS_SUBVOL_RDONLY | OTHER_FLAG
        self.is_killing = False
        self._other = fcntl.ioctl
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, handle: int, request: int, argument: bytes | bytearray) -> int | bytes:
        if request == BTRFS_IOC_SUBVOL_GETFLAGS:
            struct.pack_into("Q", argument, 0, self.flags)
            return 0
        if request != BTRFS_IOC_SUBVOL_SETFLAGS:
            return self._other(handle, request, bytes(argument))
        (flags,) = struct.unpack("Q", argument)
        if self.is_killing and flags & BTRFS_SUBVOL_RDONLY:
            raise Killed
        self.flags = flags
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[ConfinedRoot]:
    handle = os.open(tmp_path, os.O_PATH)
    yield ConfinedRoot(handle)
    os.close(handle)


def test_the_property_is_back_after_the_next_attempt(kernel: Kernel, root: ConfinedRoot, tmp_path: Path) -> None:
    kernel.is_killing = True
    with pytest.raises(Killed), Subvolumes(tmp_path).writable("partition 1/", root):
        assert kernel.flags == OTHER_FLAG
    kernel.is_killing = False
    assert kernel.flags == OTHER_FLAG
    with Subvolumes(tmp_path).writable("partition 1/", root):
        assert kernel.flags == OTHER_FLAG
    assert kernel.flags == BTRFS_SUBVOL_RDONLY | OTHER_FLAG
    assert Subvolumes(tmp_path).noted() == frozenset()


def test_a_subvolume_that_was_writable_stays_so(kernel: Kernel, root: ConfinedRoot, tmp_path: Path) -> None:
    kernel.flags = OTHER_FLAG
    with Subvolumes(tmp_path).writable("partition 1/", root):
        pass
    assert kernel.flags == OTHER_FLAG
    with Subvolumes(None).writable("partition 1/", root):
        pass
    assert kernel.flags == OTHER_FLAG


def test_an_attempt_with_nothing_left_to_repair_restores_it(kernel: Kernel, tmp_path: Path) -> None:
    guest, folder = tmp_path / "guest", tmp_path / "folder"
    folder.mkdir()
    put(guest, "etc/os-release", "ID=debian\n")
    put(guest, "etc/fstab", "/dev/sda1 / btrfs defaults 0 1\n")
    put(guest, "usr/lib/modules/6.1/modules.builtin", "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\n")

    def repair() -> Guest:
        disks = guest_disks(FolderAccess({"partition 1": guest}), simple_layout(), migration(regen_initramfs=False))
        return repair_disks(replace(disks, folder=folder))

    kernel.is_killing = True
    with pytest.raises(Killed):
        repair()
    kernel.is_killing = False
    assert kernel.flags == OTHER_FLAG
    assert repair().changes == ()
    assert kernel.flags == BTRFS_SUBVOL_RDONLY | OTHER_FLAG
