"""NTFS volumes made by mkntfs and filled through ntfs-3g, and the states that Windows can leave them in.

Sources: headers of libntfs-3g (layout.h, logfile.h), ntfs-3g's extended attributes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dissect.ntfs import NTFS
from dissect.util.stream import RangeStream

from tests.support.disks import loop, sh

SECTOR = 512
DESCRIPTOR, ATTRIBUTES, REPARSE = "system.ntfs_acl", "system.ntfs_attrib", "system.ntfs_reparse_data"
HIDDEN, SYSTEM, COMPRESSED = 0x2, 0x4, 0x800
JUNCTION, WOF = 0xA0000003, 0x80000017
WOF_FILES, XPRESS_4K = 2, 0
LOG_PAGE, USA, AREA, CLIENTS, NO_CLIENT = 4096, 0x1E, 0x30, 0x30, 0xFFFF
"""Of a restart page: its size, and where its update sequence, restart area and (in that) clients begin."""


def format_ntfs(disk: Path, offset: int, length: int, label: str) -> None:
    with loop(disk, offset=offset, length=length) as device:
        geometry = ("--partition-start", str(offset // SECTOR), "--heads", "255", "--sectors-per-track", "63")
        sh("mkntfs", "--fast", "--force", "--quiet", *geometry, "--label", label, device)


@contextlib.contextmanager
def mounted(disk: Path, offset: int, length: int, options: str = "") -> Iterator[Path]:
    """The files of a volume through ntfs-3g; `file:stream` names a stream."""
    with loop(disk, offset=offset, length=length) as device, tempfile.TemporaryDirectory() as name:
        sh("ntfs-3g", "-o", f"streams_interface=windows{options and ','}{options}", device, name)
        try:
            yield Path(name)
        finally:
            sh("umount", name)


def set_descriptor(path: Path, descriptor: bytes) -> None:
    os.setxattr(path, DESCRIPTOR, descriptor)


def set_attributes(path: Path, attributes: int) -> None:
    os.setxattr(path, ATTRIBUTES, struct.pack("<I", attributes))


def make_junction(path: Path, target: str) -> None:
    """A folder that Windows follows to `target`, for example C:\\Users."""
    path.mkdir()
    substitute, printed = (text.encode("utf-16-le") for text in (f"\\??\\{target}", target))
    names = substitute + b"\0\0" + printed + b"\0\0"
    head = struct.pack("<HHHH", 0, len(substitute), len(substitute) + 2, len(printed))
    os.setxattr(path, REPARSE, struct.pack("<IHH", JUNCTION, len(head + names), 0) + head + names)


def compress_by_wof(path: Path, data: bytes) -> None:
    """A file as CompactOS leaves it: no data but a stream that only Windows' overlay filter unpacks."""
    with path.open("wb") as file:
        file.truncate(len(data))
    path.with_name(f"{path.name}:WofCompressedData").write_bytes(data)
    os.setxattr(path, REPARSE, struct.pack("<IHHIIIII", WOF, 20, 0, 1, WOF_FILES, 1, XPRESS_4K, 0))


# ---------------------------------------------------------------- what a shutdown can leave behind


def hibernate(root: Path, magic: bytes) -> None:
    """`hibr` for hibernation and fast startup; `wake` once it was resumed from, `RSTR` while."""
    (root / "hiberfil.sys").write_bytes(magic.ljust(64 << 10, b"\0"))


def set_dirty(disk: Path, offset: int, length: int) -> None:
    """Windows would check this volume at its next start."""
    with loop(disk, offset=offset, length=length) as device:
        sh("ntfsfix", device)


def leave_log(disk: Path, offset: int, length: int, version: int = 1) -> None:
    """A log in use: Windows lost its power. Windows 8 and later make it version 2 for fast startup."""
    with disk.open("r+b") as file:
        volume = NTFS(RangeStream(file, offset, length))
        log = volume.mft.get(2)
        ((cluster, _count), *_) = log.dataruns()
        page = _restart_page(version, log.size())
        for number in range(2):
            file.seek(offset + cluster * volume.cluster_size + number * LOG_PAGE)
            file.write(page)


def _restart_page(version: int, size: int) -> bytes:
    name = "NTFS".encode("utf-16-le")
    client = struct.pack("<QQHHH6xI", 0x100000, 0x100000, NO_CLIENT, NO_CLIENT, 0, len(name)) + name.ljust(128, b"\0")
    sequence_bits = 67 - size.bit_length()
    lengths = (sequence_bits, CLIENTS + len(client), CLIENTS)
    area = struct.pack("<QHHHHIHH", 0x100000, 1, NO_CLIENT, 0, 0, *lengths)
    area += struct.pack("<QIHHII", size, 0, 0x30, 0x40, 1, 0)
    head = struct.pack("<4sHHQIIHhh", b"RSTR", USA, 9, 0, LOG_PAGE, LOG_PAGE, AREA, 0 if version == 2 else 1, version)
    return _protected(bytearray((head.ljust(AREA, b"\0") + area + client).ljust(LOG_PAGE, b"\0")), USA)


def _protected(page: bytearray, at: int) -> bytes:
    """With an update sequence number at the end of each sector."""
    struct.pack_into("<H", page, at, 1)
    for number in range(1, len(page) // SECTOR + 1):
        end = number * SECTOR - 2
        page[at + 2 * number : at + 2 * number + 2] = page[end : end + 2]
        struct.pack_into("<H", page, end, 1)
    return bytes(page)
