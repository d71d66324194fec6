"""Whether an NTFS volume may be changed: Windows must have shut it down, and left nothing to be done on it."""

from __future__ import annotations

import struct
from typing import Literal

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.volumes.ntfs.records import NtfsRecords, damaged
from hyper2kvmd.volumes.superblock import BlockReader

LOG, VOLUME = 2, 3
VOLUME_INFORMATION = 0x70
DIRTY = 0x0001 | 0x4000
"""Flags of the volume: chkdsk is to run, or was interrupted."""
HIBERNATION = "hiberfil.sys"
MEMORY_IMAGES = (b"HIBR", b"RSTR", b"WAKE")
"""The beginning of a file with an image of the memory, in either case: stored, being restored, restored."""
FOLDER, HIVE = "Windows", "System32/config/SYSTEM"
REGISTRY = f"{FOLDER}/{HIVE}"
FOLDERS_LIMIT = 1000
"""Names at the top of a volume that are looked at."""
LOADERS = ("bootmgr", "ntldr")
RESTART, CHECKED = b"RSTR", b"CHKD"
RESTART_BYTES, PAGE_SIZES = 48, (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
CLOSED, NO_CLIENT = 0x0002, 0xFFFF

LogState = Literal["clean", "unfinished", "fast startup"]


def holds_loader(reader: BlockReader) -> bool:
    """Whether the volume has a boot manager for BIOS. Raises MigrationFailed (`ntfs-damaged`)."""
    records = NtfsRecords(reader)
    return any(records.find(path) is not None for path in LOADERS)


def holds_registry(reader: BlockReader) -> bool:
    """Whether a Windows is installed on the volume. Raises MigrationFailed (`ntfs-damaged`)."""
    return NtfsRecords(reader).find(REGISTRY) is not None


def other_folder(reader: BlockReader) -> str | None:
    r"""The folder with a Windows that is not in `\Windows`, such as `WINNT`; None if there is none.

    Raises MigrationFailed (`ntfs-damaged`).
    """
    found = NtfsRecords(reader).folders_with(HIVE, FOLDERS_LIMIT)
    return next((name for name in found if name != FOLDER.upper()), None)


def require_shut_down(name: str, reader: BlockReader) -> None:
    """Raises MigrationFailed if a change could destroy what Windows left on the volume: `guest-hibernated`,
    `windows-unclean`, `ntfs-damaged`.
    """
    records = NtfsRecords(reader)
    log = log_state(records)
    if mark := memory_image(records):
        raise _hibernated(name, f"its {HIBERNATION} begins with {mark!r}")
    if log == "fast startup":
        raise _hibernated(name, "its log is kept open (version 2)")
    if is_dirty(records):
        raise _unclean(name, "it is marked as dirty")
    if log == "unfinished":
        raise _unclean(name, "its log has unfinished changes")


def is_dirty(records: NtfsRecords) -> bool:
    value = records.value(VOLUME, VOLUME_INFORMATION)
    if len(value) < 12:
        raise damaged("its information is too short")
    return bool(int.from_bytes(value[10:12], "little") & DIRTY)


def memory_image(records: NtfsRecords) -> str | None:
    """The beginning of an image of the memory, if Windows left one."""
    number = records.find(HIBERNATION)
    mark = b"" if number is None else records.head(number, 4)
    return mark.decode("ascii") if mark.upper() in MEMORY_IMAGES else None


def log_state(records: NtfsRecords) -> LogState:
    """By the newer of the two restart pages of $LogFile; a log of 0xFF bytes is empty."""
    head = records.head(LOG, 2 * PAGE_SIZES[-1])
    if not head.strip(b"\xff"):
        return "clean"
    pages = [page for size in PAGE_SIZES for at in (0, size) if (page := _restart(head, at, size)) is not None]
    if not pages:
        return "unfinished"
    _, major, state = max(pages)
    return "fast startup" if major >= 2 else "clean" if state else "unfinished"


def _restart(log: bytes, at: int, size: int) -> tuple[int, int, bool] | None:
    """A valid restart page: its sequence number, the log's version, and whether the log is closed."""
    page = log[at : at + size]
    if len(page) < size or page[:4] not in (RESTART, CHECKED):
        return None
    own_size, _, area, _, major = struct.unpack_from("<IIHhh", page, 16)
    if own_size != size or not RESTART_BYTES <= area + 16 <= min(size, 512) - 2 or area < 30:
        return None
    sequence, _, _, clients, flags = struct.unpack_from("<QHHHH", page, area)
    return sequence, major, clients == NO_CLIENT or bool(flags & CLOSED)


def _hibernated(name: str, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "guest-hibernated",
        f"{name}: Windows is hibernated, or was shut down for a fast startup: {fact}",
        hint=f"Start the guest on VMware, run `powercfg /h off` there, which removes {HIBERNATION}, then "
        "`shutdown /s /t 0`, and export it again. A shutdown alone can leave the file behind",
    )


def _unclean(name: str, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "windows-unclean",
        f"{name}: Windows was not shut down cleanly: {fact}",
        hint="Start the guest on VMware and run `chkdsk /f` on that volume. For C: it runs at the next start, so "
        "restart once. Then run `shutdown /s /t 0` and export it again",
    )
