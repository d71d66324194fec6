"""Brings the edits of a Windows guest into its image: checked before a byte is written."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.files.ntfs_root import NtfsRoot, identity_of, write_changes
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.windows.inspect import DRIVERS, SOFTWARE, SYSTEM
from hyper2kvmd.guest.windows.registry import Hive
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.volumes.fat import Blocks
from hyper2kvmd.volumes.ntfs.changes import VolumeChanges
from hyper2kvmd.volumes.ntfs.volume import open_volume

HIVE_FILES = tuple(f"/{name}".lower() for name in (SYSTEM, SOFTWARE, DRIVERS))


@dataclass(frozen=True)
class Changed:
    """A volume as it will be: its blocks below the changed ones. It is only read."""

    blocks: Blocks
    changed: VolumeChanges

    @property
    def size(self) -> int:
        return self.blocks.size

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(self.blocks.read(offset, length))
        runs = self.changed.runs
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


def write_volume(access: Access, volume: Volume, changed: VolumeChanges, expected: Mapping[str, bytes]) -> None:
    """Write the changes of a volume after the files in it were found as `expected`, by paths from its top.

    Raises MigrationFailed (`windows-write-unverified`, and as `write_changes` does).
    """
    if not changed.runs:
        return
    with access.blocks(volume, read_only=True) as blocks:
        _require_as_expected(Changed(blocks, changed), volume, expected)
    write_changes(access, volume, changed)


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
