"""Brings the edits of a Windows guest into its image: checked before a byte is written, and all or none of them."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.family import GuestDisks
from hyper2kvmd.guest.files.ntfs_root import NtfsRoot, earlier_note, identity_of, write_changes
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.windows.inspect import DRIVERS, SOFTWARE, SYSTEM
from hyper2kvmd.guest.windows.registry import Hive
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.model.guest import Change, Guest
from hyper2kvmd.volumes.fat import Blocks
from hyper2kvmd.volumes.ntfs.journal import ChangeJournal
from hyper2kvmd.volumes.ntfs.volume import open_volume

HIVE_FILES = tuple(f"/{name}".lower() for name in (SYSTEM, SOFTWARE, DRIVERS))
CHANGES = TypeAdapter(tuple[Change, ...])


@dataclass(frozen=True)
class Changed:
    """A volume as it will be: its blocks below those of a journal. It is only read."""

    blocks: Blocks
    journal: ChangeJournal

    @property
    def size(self) -> int:
        return self.blocks.size

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(self.blocks.read(offset, length))
        runs = self.journal.runs
        first = max(0, bisect_right(runs, offset, key=lambda run: run.offset) - 1)
        for run in runs[first:]:
            if run.offset >= offset + length:
                break
            start, end = max(offset, run.offset), min(offset + length, run.offset + run.length)
            if start < end:
                new = run.data * (end - start) if run.is_repeated else run.data[start - run.offset : end - run.offset]
                data[start - offset : end - offset] = new
        return bytes(data)

    def write(self, offset: int, data: bytes) -> None:
        raise MigrationFailed(
            "volume-read-only",
            f"{len(data)} bytes were to be written at {offset} of a volume that is only compared",
            hint="Report this bug: a comparison tried to write",
        )

    def flush(self) -> None:
        """Nothing is written."""


def earlier_changes(disks: GuestDisks, volume: Volume) -> tuple[Change, ...]:
    """Those that a killed attempt has made: this one finds nothing left to change there.

    Raises MigrationFailed as `Access.blocks` does, and OSError.
    """
    if disks.folder is None or disks.migration.dry_run:
        return ()
    note = earlier_note(disks.access, volume, disks.folder)
    return CHANGES.validate_json(note) if note else ()


def noted(journal: ChangeJournal, guest: Guest) -> ChangeJournal:
    """The journal, with all changes of the guest for `earlier_changes`."""
    return replace(journal, note=CHANGES.dump_json(guest.changes).decode())


def write_volume(disks: GuestDisks, volume: Volume, journal: ChangeJournal, expected: Mapping[str, bytes]) -> None:
    """Write the journal of a volume after the files in it were found as `expected`, by paths from its top.

    Raises MigrationFailed (`windows-write-unverified`, and as `write_changes` does).
    """
    if not journal.runs:
        return
    with disks.access.blocks(volume, read_only=True) as blocks:
        _require_as_expected(Changed(blocks, journal), volume, expected)
    if disks.folder is not None:
        write_changes(disks.access, volume, journal, disks.folder)
        return
    with tempfile.TemporaryDirectory(prefix="h2k-") as folder:
        write_changes(disks.access, volume, journal, Path(folder))


def _require_as_expected(blocks: Blocks, volume: Volume, expected: Mapping[str, bytes]) -> None:
    with open_volume(blocks, identity_of(volume), read_only=True) as session:
        tree = GuestTree({"/": NtfsRoot(session)})
        for path, data in expected.items():
            if not _has_content(tree, path, data):
                raise _unverified(path, "it would not have its new content")
            if path.lower().endswith(HIVE_FILES):
                _require_hive(path, data)


def _has_content(tree: GuestTree, path: str, data: bytes) -> bool:
    try:
        return tree.has_content(path, data)
    except OSError:
        return False


def _require_hive(path: str, data: bytes) -> None:
    """A complete hive, whose logs Windows will ignore."""
    try:
        replayed = Hive.parse(data).replayed
    except MigrationFailed as failure:
        raise _unverified(path, failure.message) from failure
    if replayed:
        raise _unverified(path, "it is not complete without its logs")


def _unverified(path: str, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "windows-write-unverified",
        f"the changed {printable(path)} was read back before it was written: {fact}. The image is unchanged",
        hint="Report this bug",
        kind=Kind.PERMANENT,
    )
