"""Windows disks in the states that a migration refuses or has to treat with care. Each takes a disk and changes it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.guests.windows import ntfs
from tests.guests.windows.disk import MIB, SECTOR, WindowsDisk
from tests.guests.windows.files import CONFIG, SYSTEM32
from tests.guests.windows.hives import merge
from tests.guests.windows.logs import DirtyHive, dirty, dirty_as_windows_7
from tests.support.disks import sh

LDM_METADATA, LDM_DATA = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3", "AF9B60A0-1431-4F62-BC68-3311714A69AD"
STORAGE_SPACES = "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D"
LDM_TYPE = 0x42
PRIVATE_HEADER = 6 * SECTOR
"""Of an MBR disk that is dynamic."""
Make = Callable[[WindowsDisk], None]


def hibernated(disk: WindowsDisk) -> None:
    """Hibernation, and what "shut down" means on a client with fast startup."""
    disk.change(lambda files: ntfs.hibernate(files, b"hibr"))


def resuming(disk: WindowsDisk) -> None:
    disk.change(lambda files: ntfs.hibernate(files, b"RSTR"))


def woken(disk: WindowsDisk) -> None:
    disk.change(lambda files: ntfs.hibernate(files, b"wake"))


def to_be_checked(disk: WindowsDisk) -> None:
    ntfs.set_dirty(disk.path, disk.system.offset, disk.system.length)


def unclean_log(disk: WindowsDisk) -> None:
    ntfs.leave_log(disk.path, disk.system.offset, disk.system.length)


def log_of_fast_startup(disk: WindowsDisk) -> None:
    ntfs.leave_log(disk.path, disk.system.offset, disk.system.length, version=2)


def encrypted(disk: WindowsDisk) -> None:
    """BitLocker's boot sector, and nothing that anybody could read behind it."""
    _put(disk.path, disk.system.offset, b"\xeb\x58\x90-FVE-FS-")
    for number in range(1, 64):
        _put(disk.path, disk.system.offset + number * MIB, bytes(range(256)) * 16)


def dynamic(disk: WindowsDisk) -> None:
    """The Logical Disk Manager's: an MBR whose partitions have its type, or a GPT with its own partitions."""
    if disk.windows.firmware == "bios":
        for number in range(2):
            _put(disk.path, 446 + 16 * number + 4, bytes([LDM_TYPE]))
        _put(disk.path, PRIVATE_HEADER, b"PRIVHEAD\0\0\x2c\x83\0\2\0\x0c")
        return
    sh("sgdisk", "--typecode", f"2:{LDM_METADATA}", "--typecode", f"3:{LDM_DATA}", disk.path)


def in_storage_space(disk: WindowsDisk) -> None:
    """What a pool writes there is no file system."""
    _put(disk.path, disk.system.offset, bytes(MIB))
    sh("sgdisk", "--typecode", f"3:{STORAGE_SPACES}", disk.path)


def compacted(disk: WindowsDisk) -> None:
    """CompactOS: Windows' own programs are compressed by its overlay filter."""

    def compact(files: Path) -> None:
        for name in ("cmd.exe", "svchost.exe"):
            path = files / SYSTEM32 / name
            data = path.read_bytes()
            path.unlink()
            ntfs.compress_by_wof(path, data)

    disk.change(compact)


def with_compressed_inf(disk: WindowsDisk) -> None:
    """NTFS's own compression, which new files of the folder inherit."""
    with ntfs.mounted(disk.path, disk.system.offset, disk.system.length, "compression") as files:
        folder = files / "Windows/INF"
        ntfs.set_attributes(folder, ntfs.COMPRESSED)
        text = folder / "setupapi.dev.log"
        data = text.read_bytes()
        text.unlink()
        text.write_bytes(data)


def dirty_registry(*steps: str, name: str = "SYSTEM") -> Make:
    """The steps, as .reg texts, are in the logs but not in the hive."""

    def make(disk: WindowsDisk) -> None:
        disk.change(lambda files: _leave_dirty(files / CONFIG, name, steps, is_old=disk.windows.release.build < 9600))

    return make


def _leave_dirty(config: Path, name: str, steps: Sequence[str], *, is_old: bool) -> None:
    states = [(config / name).read_bytes()]
    with tempfile.TemporaryDirectory() as folder:
        hive = Path(folder) / name
        shutil.copyfile(config / name, hive)
        for step in steps:
            merge(hive, step)
            states.append(hive.read_bytes())
    left: DirtyHive = dirty_as_windows_7(states[0], states[-1]) if is_old else dirty(states)
    for suffix, data in (("", left.primary), (".LOG1", left.log1), (".LOG2", left.log2)):
        (config / f"{name}{suffix}").write_bytes(data)


def _put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
