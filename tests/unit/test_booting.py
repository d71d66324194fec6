"""The firmware of the new machine and the disk that it boots from."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.booting import decide_boot_disk, decide_firmware
from hyper2kvmd.model.disks import ESP_TYPES, BootCode, Layout, Volume
from hyper2kvmd.model.machine import Firmware
from hyper2kvmd.volumes.boot_code import has_efi_loader, read_boot_code
from tests.support.guest_on_disk import mtools, partition, put

LOADED = partition(1, "vfat", parttype=ESP_TYPES[0]).with_changes(efi_loader=True)
EMPTY = partition(1, "unknown", parttype=ESP_TYPES[0])


def layout(*volumes: Volume, code: tuple[BootCode, ...] = ("loader",)) -> Layout:
    return Layout(tables=tuple("gpt" for _ in code or "-"), volumes=volumes, boot_code=code)


@pytest.mark.parametrize(
    ("asked", "described", "esp", "code", "firmware", "warned"),
    [
        (None, None, LOADED, "loader", "uefi", 0),
        (None, None, EMPTY, "loader", "bios", 1),
        (None, None, EMPTY, "none", "bios", 1),
        (None, "bios", LOADED, "loader", "bios", 0),
        (None, "bios", LOADED, "none", "uefi", 1),
        (None, "bios", EMPTY, "loader", "bios", 1),
        (None, "uefi", LOADED, "loader", "uefi", 0),
        (None, "uefi", EMPTY, "loader", "uefi", 1),
        (True, "bios", EMPTY, "loader", "uefi", 0),
        (False, "uefi", LOADED, "loader", "bios", 0),
    ],
)
def test_firmware(
    asked: bool | None, described: Firmware | None, esp: Volume, code: BootCode, firmware: Firmware, warned: int
) -> None:
    found, warnings = decide_firmware(asked, described, layout(esp, code=(code,)))
    assert (found, len(warnings)) == (firmware, warned), warnings


@pytest.mark.parametrize(
    ("code", "system", "number", "warned"),
    [
        (("loader", "none"), (0,), 0, ""),
        (("loader", "none"), (1,), 0, ""),
        (("none", "loader"), (1,), 1, "boots from disk 2: disk 1 has no boot code"),
        (("code", "loader"), (1,), 1, "boots from disk 2, which has a boot loader; disk 1 has other boot code"),
        (("none", "code"), (), 1, "boots from disk 2"),
        (("none", "loader", "loader"), (2,), 2, "boots from disk 3"),
        (("loader", "loader"), (1,), 0, "both have a boot loader, and the system is on disk 2"),
        (("loader", "loader"), (0, 1), 0, ""),
        (("none", "none"), (1,), 1, "no disk has boot code"),
    ],
)
def test_bios_boots_the_disk_with_boot_code(
    code: tuple[BootCode, ...], system: tuple[int, ...], number: int, warned: str
) -> None:
    found = decide_boot_disk(layout(code=code), "bios", system)
    assert found.number == number
    assert warned in " ".join(found.warnings) and bool(found.warnings) == bool(warned)


def test_uefi_boots_the_disk_with_a_loader_on_its_esp() -> None:
    disks = layout(EMPTY, LOADED.with_changes(disk=1), code=("loader", "none"))
    found = decide_boot_disk(disks, "uefi", (1,))
    assert found.number == 1 and "disk 1 has no boot loader for UEFI" in found.warnings[0]
    assert "cannot start it" in decide_boot_disk(layout(EMPTY), "uefi", ()).warnings[0]


class Disk:
    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def sector(program: bytes = b"", active: bool = False, signed: bool = True) -> bytes:
    record = bytearray(program.ljust(512, b"\0"))
    record[446] = 0x80 if active else 0
    record[510:512] = b"\x55\xaa" if signed else b"\0\0"
    return bytes(record)


@pytest.mark.parametrize(
    ("record", "begins", "found"),
    [
        (sector(), sector(), "none"),
        (sector(b"\xeb\x63GRUB \0Geom"), sector(), "loader"),
        (sector(b"\xfaLILO"), sector(), "loader"),
        (sector(b"\xeb\x63GRUB ", signed=False), sector(), "none"),
        (sector(b"\xfa\x33\xc0 Missing operating system", active=True), sector(b"\xeb\x58\x90EXTLINUX"), "loader"),
        (sector(b"\xfa\x33\xc0 Missing operating system", active=True), sector(), "code"),
        (sector(b"\xfa\x33\xc0 Missing operating system"), sector(b"\xeb\x58\x90MSDOS"), "code"),
        (sector(b"\xeb\x58\x90mkfs.fat This is not a bootable disk."), sector(), "none"),
    ],
)
def test_boot_code_of_a_disk(record: bytes, begins: bytes, found: BootCode) -> None:
    disk = Disk(record + bytes((1 << 20) - 512) + begins + bytes(1 << 20))
    assert read_boot_code(disk, [partition(1)]) == found


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("EFI/BOOT/BOOTX64.EFI", b"MZ program", True),
        ("EFI/debian/grubx64.efi", b"MZ program", True),
        ("EFI/Microsoft/Boot/bootmgfw.efi", b"MZ program", True),
        ("EFI/Other/Boot/other.efi", b"MZ program", False),
        ("EFI/debian/grubx64.efi", b"", False),
        ("EFI/debian/grub.cfg", b"MZ", False),
        ("grubx64.efi", b"MZ program", False),
    ],
)
def test_a_boot_loader_on_an_efi_partition(tmp_path: Path, name: str, content: bytes, found: bool) -> None:
    image = tmp_path / "esp"
    image.write_bytes(bytes(8 << 20))
    mtools("mformat", "-i", image, "-T", (8 << 20) // 512, "-h2", "-s32", "::")
    parts = name.split("/")
    for depth in range(1, len(parts)):
        mtools("mmd", "-i", image, "::/" + "/".join(parts[:depth]))
    put(tmp_path, "file", content)
    mtools("mcopy", "-i", image, tmp_path / "file", f"::/{name}")
    assert has_efi_loader(Disk(image.read_bytes())) == found


def test_an_efi_partition_that_cannot_be_read_has_no_loader() -> None:
    damaged = bytearray(1 << 20)
    damaged[54:58], damaged[510:512] = b"FAT1", b"\x55\xaa"
    assert not has_efi_loader(Disk(bytes(damaged)))


def test_a_disk_smaller_than_a_sector_has_no_boot_code() -> None:
    assert read_boot_code(Disk(b"\x55\xaa"), []) == "none"
