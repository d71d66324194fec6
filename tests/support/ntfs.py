"""NTFS volumes by mkntfs, and what readers of other authors see in them."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from dissect.ntfs import NTFS
from dissect.ntfs.mft import MftRecord

from hyper2kvmd.volumes.ntfs.volume import NtfsVolume, open_volume
from hyper2kvmd.volumes.window import FileDisk
from tests.support.disks import sh
from tests.support.host import MIB

IDENTITY = "partition 2"
FIRST_USER_FILE = 24
CLUSTER, RECORD, SECTOR, PAGE = 4096, 1024, 512, 4096
VOLUME_INFORMATION = 0x70
LOG_BYTES = 2 << 20
"""Of the log of a volume of 4 to 64 MiB."""


@dataclass
class MemoryVolume:
    """A volume in memory, and the offsets of what was written to it."""

    data: bytearray
    written: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data
        self.written.append(offset)

    def flush(self) -> None:
        pass


def make_ntfs(path: Path, size: int = 64 * MIB, *options: str) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    sh("mkntfs", "--fast", "--force", "--quiet", *options, path)
    return path


@contextmanager
def opened(path: Path, *, read_only: bool = False) -> Iterator[NtfsVolume]:
    """The session of a volume that a file holds."""
    with disk_of(path) as disk, open_volume(disk, IDENTITY, read_only=read_only) as volume:
        yield volume


@contextmanager
def disk_of(path: Path) -> Iterator[FileDisk]:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield FileDisk(handle)
    finally:
        os.close(handle)


@contextmanager
def changed(path: Path) -> Iterator[NtfsVolume]:
    """A session whose changes are in the file at the end."""
    with opened(path) as volume:
        yield volume
        made = volume.changed_blocks()
    with disk_of(path) as disk:
        made.write(disk)


def seen_by_dissect(path: Path) -> dict[str, str]:
    """Paths of all files and folders, with the digest of their content."""
    with path.open("rb") as file:
        return dict(_below(NTFS(file).mft.root, ""))


def _below(folder: MftRecord, place: str) -> Iterator[tuple[str, str]]:
    for name, entry in folder.listdir().items():
        record = entry.dereference()
        if record.segment < FIRST_USER_FILE:
            continue
        if record.is_dir() and not record.is_reparse_point():
            yield place + name, "folder"
            yield from _below(record, f"{place}{name}/")
        else:
            yield place + name, "reparse" if record.is_dir() else hashlib.sha256(record.open().read()).hexdigest()


@contextmanager
def mounted(path: Path, folder: Path, *, writable: bool = False) -> Iterator[Path]:
    """The volume as ntfs-3g's FUSE server shows it. Needs root."""
    folder.mkdir(exist_ok=True)
    sh("ntfs-3g", "-o", "rw,compression" if writable else "ro", path, folder)
    try:
        yield folder
    finally:
        sh("umount", folder)
        while _is_served(path):  # it writes its last blocks after the umount of a file
            time.sleep(0.01)


def _is_served(path: Path) -> bool:
    commands = (one.info["cmdline"] or [""] for one in psutil.process_iter(["cmdline"]))
    return any(words[0].endswith("ntfs-3g") and str(path) in words for words in commands)


def seen_by_fuse(path: Path, folder: Path, *, below: str = "") -> dict[str, str]:
    """As `seen_by_dissect`, of the files below a folder."""
    with mounted(path, folder) as top:
        return {
            str(place.relative_to(top)): "folder" if place.is_dir() else hashlib.sha256(place.read_bytes()).hexdigest()
            for place in sorted((top / below).rglob("*"))
        }


def is_sound(path: Path) -> bool:
    """By ntfsfix, which changes nothing with -n."""
    checked = subprocess.run(["ntfsfix", "-n", str(path)], capture_output=True, text=True, check=False)
    return checked.returncode == 0 and "was processed successfully" in checked.stdout


def log_page(sequence: int, *, closed: bool, clients: int | None = None, version: int = 1) -> bytes:
    """A restart page of $LogFile, with one client: NTFS. `clients` is the first client that is in use."""
    used = (0xFFFF if closed else 0) if clients is None else clients
    free = 0 if used == 0xFFFF else 0xFFFF
    bits = 67 - LOG_BYTES.bit_length()
    page = bytearray(PAGE)
    struct.pack_into("<4sHHQIIHhhH", page, 0, b"RSTR", 0x1E, PAGE // SECTOR + 1, 0, PAGE, PAGE, 0x30, 1, version, 1)
    area = (sequence, 1, free, used, 2 if closed else 0, bits, 224, 64, LOG_BYTES, 0, 0x30, 0x40, 1, 0)
    struct.pack_into("<QHHHHIHHQIHHII", page, 0x30, *area)
    struct.pack_into("<QQHHH6sI8s", page, 0x70, 0, 0, 0xFFFF, 0xFFFF, 0, b"", 8, "NTFS".encode("utf-16-le"))
    for number, end in enumerate(range(SECTOR, PAGE + 1, SECTOR), start=1):
        page[0x1E + 2 * number : 0x20 + 2 * number] = page[end - 2 : end]
        page[end - 2 : end] = page[0x1E:0x20]
    return bytes(page)


def write_log(path: Path, pages: list[bytes]) -> None:
    """Put the restart pages into $LogFile, whose first record in the MFT names its place."""
    with path.open("r+b") as file:
        place = NTFS(file).mft.get("$LogFile").dataruns()[0][0]
        file.seek(place * CLUSTER)
        file.write(b"".join(pages).ljust(2 * PAGE, b"\xff"))


def set_dirty(path: Path) -> None:
    """As Windows marks a volume for chkdsk."""
    with path.open("r+b") as file:
        file.seek(48)
        for first in struct.unpack("<QQ", file.read(16)):  # the MFT and its mirror
            record = first * CLUSTER + 3 * RECORD
            file.seek(record)
            raw = file.read(RECORD)
            at = int.from_bytes(raw[20:22], "little")
            while int.from_bytes(raw[at : at + 4], "little") != VOLUME_INFORMATION:
                at += int.from_bytes(raw[at + 4 : at + 8], "little")
            file.seek(record + at + int.from_bytes(raw[at + 20 : at + 22], "little") + 10)
            file.write(b"\x01\x00")
