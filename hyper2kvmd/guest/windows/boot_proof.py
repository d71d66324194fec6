"""What a booted Windows leaves on its disk: entries in its System event log, which a service of it writes.

The log is read by the project's own reader of NTFS, which needs no clean file system: the guest may have been stopped.
Source: libevtx, "Windows XML Event Log (EVTX) format".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import OverlayDisks, ShownState
from hyper2kvmd.guest.files.tree import printable
from hyper2kvmd.guest.windows.search import WindowsVolumes, choose
from hyper2kvmd.guest.windows.volumes import readable
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.volumes.ntfs.records import NtfsRecords
from hyper2kvmd.volumes.ntfs.state import holds_registry

LOG = "Windows/System32/winevt/Logs/System.evtx"
LARGEST_LOG = 256 << 20
"""Bytes; Windows limits it to 20 MiB unless it is configured otherwise."""
FILE_MAGIC, CHUNK_MAGIC = b"ElfFile\0", b"ElfChnk\0"
FILE_HEADER, CHUNK = 4096, 65536
LAST_RECORD = struct.Struct("<Q")
LAST_RECORD_AT = 32
"""In the header of a chunk: the identifier of its last entry."""
NO_RECORD = (1 << 64) - 1


@dataclass(frozen=True)
class PreparedWindows:
    """A guest that is booted unchanged, and whose event log is compared."""

    disks: OverlayDisks
    volume: Volume
    before: int
    """The identifier of the last entry."""

    @property
    def note(self) -> str:
        return f"it was booted unchanged; its System event log had {self.before} entries"

    def new_traces(self) -> tuple[str, ...]:
        """Raises as `last_entry` and `OverlayDisks.open` do."""
        now = _read(self.disks, self.volume) or 0
        if now <= self.before:
            return ()
        return (f"its System event log has {now - self.before} new entries, which its event log service wrote",)

    def is_shown(self, _console: str, /) -> bool:
        return True

    def compare(self, _console: str, /) -> ShownState | None:
        """It prints nothing."""
        return None


def prepare_windows(disks: OverlayDisks) -> PreparedWindows | None:
    """None if it has no event log. Raises as `choose` and `OverlayDisks.open` do."""
    volumes = tuple(readable(disks.layout))
    if not volumes:
        return None
    with disks.open() as access:
        installed = []
        for volume in volumes:
            with access.blocks(volume, read_only=True) as blocks:
                installed += [volume] if holds_registry(blocks) else []
    chosen = choose(WindowsVolumes(tuple(installed), ()), disks.layout, disks.root)
    before = _read(disks, chosen) if chosen else None
    return PreparedWindows(disks, chosen, before) if chosen and before is not None else None


def _read(disks: OverlayDisks, volume: Volume) -> int | None:
    """The identifier of the last entry; None without an event log."""
    with disks.open() as access, access.blocks(volume, read_only=True) as blocks:
        records = NtfsRecords(blocks)
        number = records.find(LOG)
        return None if number is None else last_entry(records.head(number, LARGEST_LOG))


def last_entry(log: bytes) -> int:
    """The identifier of the last entry, which begins at 1; 0 for an empty log.

    It is taken from the chunks, because the header of a log in use is not up to date.
    Raises MigrationFailed (`guest-damaged`).
    """
    if not log.startswith(FILE_MAGIC):
        raise MigrationFailed(
            "guest-damaged",
            f"{LOG} is no event log: it begins with {printable(repr(log[:8]))}",
            hint="Check the volume in the guest (chkdsk), shut the guest down, then export it again",
        )
    last = 0
    for at in range(FILE_HEADER, len(log) - LAST_RECORD_AT - LAST_RECORD.size, CHUNK):
        if log[at : at + len(CHUNK_MAGIC)] == CHUNK_MAGIC:
            (found,) = LAST_RECORD.unpack_from(log, at + LAST_RECORD_AT)
            last = max(last, found if found != NO_RECORD else 0)
    return last
