"""A btrfs subvolume with the property `ro` has it again after a repair."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.guest.files.file_system import (
    BTRFS_IOC_SUBVOL_GETFLAGS,
    BTRFS_IOC_SUBVOL_SETFLAGS,
    BTRFS_SUBVOL_RDONLY,
)
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.linux.subvolumes import writable_subvolume
from hyper2kvmd.stages.repair import repair_disks
from tests.support.guest_on_disk import FolderAccess, guest_disks, migration, put, simple_layout

OTHER_FLAG = 4


class Kernel:
    """Answers for a btrfs: the flags of the only subvolume."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flags = BTRFS_SUBVOL_RDONLY | OTHER_FLAG
        self.set_flags: list[int] = []
        self._other = fcntl.ioctl
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, handle: int, request: int, argument: bytes | bytearray) -> int | bytes:
        if request == BTRFS_IOC_SUBVOL_GETFLAGS:
            struct.pack_into("Q", argument, 0, self.flags)
            return 0
        if request != BTRFS_IOC_SUBVOL_SETFLAGS:
            return self._other(handle, request, bytes(argument))
        (flags,) = struct.unpack("Q", argument)
        self.flags = flags
        self.set_flags.append(flags)
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[ConfinedRoot]:
    handle = os.open(tmp_path, os.O_PATH)
    yield ConfinedRoot(handle)
    os.close(handle)


def test_the_property_is_off_for_the_edits_only(kernel: Kernel, root: ConfinedRoot) -> None:
    with writable_subvolume(root):
        assert kernel.flags == OTHER_FLAG
    assert kernel.flags == BTRFS_SUBVOL_RDONLY | OTHER_FLAG


def test_a_failed_edit_leaves_the_property(kernel: Kernel, root: ConfinedRoot) -> None:
    with pytest.raises(OSError, match="no space"), writable_subvolume(root):
        raise OSError("no space")
    assert kernel.flags == BTRFS_SUBVOL_RDONLY | OTHER_FLAG


def test_a_subvolume_that_was_writable_stays_so(kernel: Kernel, root: ConfinedRoot) -> None:
    kernel.flags = OTHER_FLAG
    with writable_subvolume(root):
        pass
    assert kernel.flags == OTHER_FLAG


def test_a_repair_leaves_the_property(kernel: Kernel, tmp_path: Path) -> None:
    guest = tmp_path / "guest"
    put(guest, "etc/os-release", "ID=debian\n")
    put(guest, "etc/fstab", "/dev/sda1 / btrfs defaults 0 1\n")
    put(guest, "usr/lib/modules/6.1/modules.builtin", "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\n")
    disks = guest_disks(FolderAccess({"partition 1": guest}), simple_layout(), migration(regen_initramfs=False))
    assert repair_disks(disks).changes != ()
    assert kernel.flags == BTRFS_SUBVOL_RDONLY | OTHER_FLAG
    assert kernel.set_flags == [OTHER_FLAG, BTRFS_SUBVOL_RDONLY | OTHER_FLAG]
