"""Disks without a system that was found: data, or a system that would not boot without a repair."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.volumes.layout import read_layout
from tests.support.guest_on_disk import layout, migration, partition, put, repaired

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"


class Sectors:
    """A disk that is all in memory."""

    def __init__(self, first: bytes) -> None:
        self._data = first.ljust(1 << 20, b"\0")
        self.size = len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def first_sector(code: bytes, status: int = 0) -> bytes:
    entry = struct.pack("<B3xB3xII", status, 0x83, 64, 128)
    return code.ljust(446, b"\0") + entry.ljust(64, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize(
    ("disk", "word"),
    [
        (layout(partition(1), partition(2, "vfat", parttype=ESP)), "partition 2 is an EFI system partition"),
        (layout(partition(1, parttype=BIOS_BOOT)), "BIOS boot partition"),
        (layout(partition(1)).with_changes(boots=("disk 1 starts GRUB",)), "disk 1 starts GRUB"),
    ],
)
def test_a_disk_that_boots_something_is_not_called_data(tmp_path: Path, disk: Layout, word: str) -> None:
    with pytest.raises(MigrationFailed, match=word) as caught:
        repaired({"partition 1": tmp_path}, disk, migration())
    assert caught.value.code == "guest-not-found" and "guest: none" in caught.value.hint
    assert repaired({"partition 1": tmp_path}, disk, migration(guest="none")).family == "none"


@pytest.mark.parametrize("file", ["vmlinuz-6.1", "boot/vmlinuz", "grub2/grub.cfg", "loader/entries/one.conf"])
def test_a_volume_with_a_kernel_or_a_boot_loader_is_not_data(tmp_path: Path, file: str) -> None:
    put(tmp_path, file, "")
    with pytest.raises(MigrationFailed, match=f"partition 1 holds /{file}"):
        repaired({"partition 1": tmp_path}, layout(partition(1)), migration())


def test_with_guest_none_nothing_is_looked_at(tmp_path: Path) -> None:
    put(tmp_path, "etc/os-release", "ID=debian\n")
    put(tmp_path, "usr/.keep", "")
    put(tmp_path, "etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n")
    guest = repaired({}, layout(partition(1, uuid="1")), migration(guest="none"))
    assert guest.family == "none" and guest.changes == () and guest.warnings == ()


@pytest.mark.parametrize("asked", ["none", "auto"])
def test_disks_whose_system_is_unknown_get_devices_that_need_no_driver(asked: str, tmp_path: Path) -> None:
    guest = repaired({"partition 1": tmp_path}, layout(partition(1)), migration(guest=asked))
    assert (guest.capabilities.disk_bus, guest.capabilities.nic_model) == ("sata", "e1000e")
    assert len(guest.warnings) == (asked == "auto")


@pytest.mark.parametrize(
    ("code", "status", "sign"),
    [
        (b"\xeb\x63\x90" + b"\0" * 100 + b"GRUB \0Geom\0", 0, ("disk 1 starts GRUB",)),
        (b"\xfa\xeb\x21\x01\xb4\x01LILO", 0, ("disk 1 starts LILO",)),
        (b"", 0x80, ("partition 1 of disk 1 is active",)),
        (b"\xfa\xb8\x00\x10 a partitioning tool's own code", 0, ()),
    ],
)
def test_the_first_sector_tells_what_boots(code: bytes, status: int, sign: tuple[str, ...]) -> None:
    assert read_layout([Sectors(first_sector(code, status))]).boots == sign


def test_an_empty_disk_boots_nothing() -> None:
    assert read_layout([Sectors(b"")]).boots == ()
