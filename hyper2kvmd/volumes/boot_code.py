"""Signs that a firmware can start a disk: boot code in its first sector, a boot loader on its EFI system partition.

Sources: UEFI specification 2.10, 3.5.1.1 and chapter 5 (MBR); the boot sectors of GRUB, LILO, syslinux, Windows and
dosfstools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.disks import BootCode, Volume
from hyper2kvmd.volumes.fat import FatVolume
from hyper2kvmd.volumes.superblock import BlockReader

SECTOR = 512
CODE = slice(0, 440)
"""The part of an MBR that is a program; disk signature and partitions follow."""
SIGNATURE = b"\x55\xaa"
LOADERS = (b"GRUB ", b"LILO", b"SYSLINUX", b"ISOLINUX", b"EXTLINUX")
"""Words in the first sector of a boot loader that finds its other parts by itself."""
NOT_BOOTABLE = b"This is not a bootable disk"
"""The program that mkfs.fat writes into every file system."""
ACTIVE = 0x80
EFI_FOLDER = "EFI"
WINDOWS_FOLDERS = ("microsoft", "boot")
PROGRAM = b"MZ"
MAX_NAMES = 1000
"""Folders and files of one EFI partition that are looked at."""


def read_boot_code(reader: BlockReader, partitions: Sequence[Volume]) -> BootCode:
    """`loader` for a known boot loader or a program that starts an active partition with code; `code` for another
    program; else `none`.
    """
    if reader.size < SECTOR:
        return "none"
    record = reader.read(0, SECTOR)
    if not _is_program(record):
        return "none"
    if any(word in record for word in LOADERS) or any(_starts(reader, volume, record) for volume in partitions):
        return "loader"
    return "code"


def _is_program(record: bytes) -> bool:
    return record[510:512] == SIGNATURE and any(record[CODE]) and NOT_BOOTABLE not in record


def _starts(reader: BlockReader, volume: Volume, record: bytes) -> bool:
    """Whether `volume` is the active partition of an MBR and begins with a program."""
    number = volume.number or 0
    if not 1 <= number <= 4 or record[446 + 16 * (number - 1)] != ACTIVE or not volume.stretches:
        return False
    return _is_program(reader.read(volume.segments[0].offset, SECTOR))


class _ReadOnly:
    """`fat.Blocks` that are never written."""

    def __init__(self, reader: BlockReader) -> None:
        self._reader = reader
        self.size = reader.size

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise _damaged()
        return self._reader.read(offset, length)

    def write(self, _offset: int, _data: bytes) -> None:
        raise _damaged()

    def flush(self) -> None:
        pass


def _damaged() -> MigrationFailed:
    return MigrationFailed("guest-damaged", "an EFI system partition is damaged", hint="Check it in the guest (fsck)")


def has_efi_loader(reader: BlockReader) -> bool:
    """Whether a FAT file system has an EFI program in a folder of /EFI. False for a damaged file system.

    Raises MigrationFailed as `reader` does.
    """
    try:
        return _has_program(FatVolume(_ReadOnly(reader)))
    except MigrationFailed as failure:
        if failure.code != "guest-damaged":
            raise
        return False
    except OSError:
        return False


def _vendor_folders(volume: FatVolume) -> Iterator[str]:
    """The folders of /EFI, and the one in Microsoft's where Windows has its boot manager."""
    for folder in volume.names(EFI_FOLDER):
        place = f"{EFI_FOLDER}/{folder}"
        if not folder.startswith(".") and volume.entry(place).is_folder:
            yield place
            if folder.lower() == WINDOWS_FOLDERS[0]:
                yield from (f"{place}/{name}" for name in volume.names(place) if name.lower() == WINDOWS_FOLDERS[1])


def _has_program(volume: FatVolume) -> bool:
    left = MAX_NAMES
    for place in _vendor_folders(volume):
        for name in volume.names(place):
            left -= 1
            if left < 0:
                return False
            if name.lower().endswith(".efi") and next(volume.pieces(f"{place}/{name}"), b"").startswith(PROGRAM):
                return True
    return False
