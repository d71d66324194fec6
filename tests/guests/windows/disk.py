"""The disk of a Windows: partitions as its setup makes them, two NTFS volumes, files and registry."""

from __future__ import annotations

import struct
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.guests.windows import ntfs
from tests.guests.windows.descriptors import INHERITED_BY_ALL, OF_HIVES, OF_SYSTEM_FILES, OF_SYSTEM_FOLDERS
from tests.guests.windows.files import CONFIG, EMPTY_FOLDERS, RECOVERY_FILES, loader_files, system_files
from tests.guests.windows.hives import make_hive
from tests.guests.windows.machine import Windows
from tests.guests.windows.registry_text import render, text
from tests.guests.windows.software_hive import drivers_text, software_text
from tests.guests.windows.system_hive import system_text
from tests.support.disks import empty_disk, sh
from tests.support.hives import hive

MIB = 1 << 20
SECTOR = 512
SIZE = 320
"""MiB."""
SIGNATURE = 0x4D5A3C21
"""Of an MBR disk; MountedDevices names volumes by it."""
DISK = "8F3C2B10-6D5E-4A7B-9C81-2E4F60718293"
PARTITIONS = {"windows": uuid.UUID("1D2C3B4A-5E6F-4708-9182-A3B4C5D6E7F8")}
EFI, RESERVED, DATA, RECOVERY = (
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
    "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC",
)
BOOT_CODE = b"\xfa\xf4\xeb\xfd" + b"\r\nMissing operating system\0"
"""cli; hlt; jmp back: a program, which is all that is looked for."""
BCD_STORE = "Boot/BCD"
Change = Callable[[Path], object]
"""Of the files of a mounted volume."""


@dataclass(frozen=True)
class Extent:
    offset: int
    length: int


@dataclass(frozen=True)
class WindowsDisk:
    path: Path
    windows: Windows
    loader: Extent
    """System Reserved, or the EFI system partition."""
    system: Extent
    """C:"""
    recovery: Extent | None = None

    def change(self, change: Change) -> None:
        """Change files of C:."""
        with ntfs.mounted(self.path, self.system.offset, self.system.length) as files:
            change(files)


LAYOUTS: Mapping[str, tuple[tuple[str, str, int], ...]] = {
    # name, sfdisk's type, MiB (0: all that is left)
    "bios": (("loader", "7", 40), ("windows", "7", 0)),
    "uefi": (("loader", EFI, 40), ("reserved", RESERVED, 16), ("windows", DATA, 220), ("recovery", RECOVERY, 0)),
}


def windows_disk(path: Path, windows: Windows) -> WindowsDisk:
    """A raw disk, sparse. Takes root: it is filled through mounts."""
    extents = _partition(path, windows)
    disk = WindowsDisk(path, windows, extents["loader"], extents["windows"], extents.get("recovery"))
    _fill_loader(disk)
    _format(path, disk.system, "")
    with ntfs.mounted(path, disk.system.offset, disk.system.length) as files:
        _fill_system(files, windows, _mounted_devices(disk))
    if disk.recovery is not None:
        _format(path, disk.recovery, "Recovery")
        with ntfs.mounted(path, disk.recovery.offset, disk.recovery.length) as files:
            _write(files, RECOVERY_FILES)
    return disk


def _partition(path: Path, windows: Windows) -> dict[str, Extent]:
    empty_disk(path, SIZE)
    layout = LAYOUTS[windows.firmware]
    is_mbr = windows.firmware == "bios"
    lines = ["label: dos", f"label-id: 0x{SIGNATURE:08x}"] if is_mbr else ["label: gpt", f"label-id: {DISK}"]
    extents, at = {}, MIB
    for name, kind, mebibytes in layout:
        length = mebibytes * MIB or SIZE * MIB - at - MIB
        line = f"start={at // SECTOR}, size={length // SECTOR}, type={kind}"
        line += ", bootable" if is_mbr and name == "loader" else ""
        line += f", uuid={PARTITIONS[name]}" if not is_mbr and name in PARTITIONS else ""
        lines.append(line)
        extents[name] = Extent(at, length)
        at += length
    sh("sfdisk", "--quiet", path, stdin="\n".join(lines))
    if is_mbr:
        _put(path, 0, BOOT_CODE)
    return extents


def _fill_loader(disk: WindowsDisk) -> None:
    extent, files = disk.loader, loader_files(disk.windows)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "BCD"
        make_hive(store, render((("Description", {"KeyName": text("BCD00000000")}), ("Objects", {}))))
        configuration = store.read_bytes()
    if disk.windows.firmware == "uefi":
        _fill_esp(disk, {**files, "EFI/Microsoft/Boot/BCD": configuration})
        return
    _format(disk.path, extent, "System Reserved")
    with ntfs.mounted(disk.path, extent.offset, extent.length) as top:
        _write(top, {**files, BCD_STORE: configuration})
    _make_bootable(disk.path, extent)


def _make_bootable(path: Path, extent: Extent) -> None:
    """A program in the volume's boot sector and in its copy, the last sector."""
    with path.open("rb") as file:
        file.seek(extent.offset)
        sector = file.read(SECTOR)
    sector = sector[:0x54] + BOOT_CODE.ljust(SECTOR - 0x54 - 2, b"\0") + sector[-2:]
    for offset in (extent.offset, extent.offset + extent.length - SECTOR):
        _put(path, offset, sector)


def _fill_esp(disk: WindowsDisk, files: Mapping[str, bytes]) -> None:
    where = f"{disk.path}@@{disk.loader.offset}"
    sh("mformat", "-i", where, "-F", "-T", str(disk.loader.length // SECTOR), "-h64", "-s32", "::")
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name), files)
        sh("mcopy", "-s", "-i", where, Path(name) / "EFI", "::/")


def _fill_system(files: Path, windows: Windows, mounted_devices: Mapping[str, bytes]) -> None:
    for name in EMPTY_FOLDERS:
        (files / name).mkdir(parents=True)
    _write(files, system_files(windows))
    config = files / CONFIG
    config.mkdir()
    make_hive(config / "SYSTEM", system_text(windows, mounted_devices))
    _write_other_hives(config, windows)
    ntfs.make_junction(files / "Documents and Settings", "C:\\Users")
    for name in ("pagefile.sys", "$Recycle.Bin", "System Volume Information"):
        ntfs.set_attributes(files / name, ntfs.HIDDEN | ntfs.SYSTEM)
    _protect(files)


def _write_other_hives(config: Path, windows: Windows) -> None:
    make_hive(config / "SOFTWARE", software_text(windows))
    if windows.release.has_driver_database:
        make_hive(config / "DRIVERS", drivers_text(windows))
    for name in ("SAM", "SECURITY", "DEFAULT", "COMPONENTS"):
        (config / name).write_bytes(hive({}))
    for name in ("SYSTEM", "SOFTWARE"):
        for log in ("LOG1", "LOG2"):
            (config / f"{name}.{log}").touch()


def _protect(files: Path) -> None:
    """Windows' own files belong to its installer, the hives to the system."""
    windows = files / "Windows"
    for path in (windows, *windows.rglob("*")):
        if path.is_dir():
            data = OF_SYSTEM_FOLDERS.descriptor(INHERITED_BY_ALL)
        else:
            data = (OF_HIVES if path.parent.name == "config" else OF_SYSTEM_FILES).descriptor()
        ntfs.set_descriptor(path, data)


def _write(top: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _format(path: Path, extent: Extent, label: str) -> None:
    ntfs.format_ntfs(path, extent.offset, extent.length, label)


def _mounted_devices(disk: WindowsDisk) -> dict[str, bytes]:
    if disk.windows.firmware == "uefi":
        system = b"DMIO:ID:" + PARTITIONS["windows"].bytes_le
        return {"\\DosDevices\\C:": system, f"\\??\\Volume{{{PARTITIONS['windows']}}}": system}
    system, loader = (struct.pack("<IQ", SIGNATURE, extent.offset) for extent in (disk.system, disk.loader))
    volume = "\\??\\Volume{9c0f1e2d-0000-0000-0000-"
    return {
        "\\DosDevices\\C:": system,
        f"{volume}{disk.system.offset:012x}}}": system,
        f"{volume}{disk.loader.offset:012x}}}": loader,
    }


def _put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
