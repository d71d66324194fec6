"""A Windows guest on throwaway overlays, prepared for its boot and searched for traces after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import OverlayDisks, Patience
from hyper2kvmd.guest.files.ntfs_root import NtfsRoot, ntfs_session, write_changes
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.windows.boot_proof.settings import CHANGED, prepare_settings
from hyper2kvmd.guest.windows.boot_proof.traces import Reader, WindowsTraces, new_since, traces
from hyper2kvmd.guest.windows.hives import Hives
from hyper2kvmd.guest.windows.inspect import inspect_windows
from hyper2kvmd.guest.windows.repair import CONFIG, ROOT
from hyper2kvmd.guest.windows.search import WindowsVolumes, choose
from hyper2kvmd.guest.windows.volumes import readable
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.volumes.ntfs.records import NtfsRecords
from hyper2kvmd.volumes.ntfs.state import holds_registry
from hyper2kvmd.volumes.superblock import BlockReader

PATIENCE = Patience(press_seconds=600.0, limit_seconds=7200.0)
"""Windows can work in the background for hours after a boot. An emulated boot needs much of the limit."""


@dataclass(frozen=True)
class PreparedWindows:
    """`before` are the traces of earlier boots."""

    disks: OverlayDisks
    volume: Volume
    before: WindowsTraces
    note: str
    patience: Patience = PATIENCE

    @property
    def power_off_proves(self) -> bool:
        """Another system on its disks, as for a recovery, may answer as well: its event log decides if there is one."""
        return self.before.highest is None

    def new_traces(self) -> tuple[str, ...]:
        with self.disks.open() as access, _files(access, self.volume) as read:
            return new_since(self.before, read)

    def is_shown(self, _console: str, /) -> bool:
        return True

    def compare(self, _console: str, /) -> None:
        return None


def prepare_windows(disks: OverlayDisks) -> PreparedWindows:
    """Note the traces of earlier boots, and set what makes the boot observable.

    Raises OSError and MigrationFailed as `choose`, `open_volume` and `Access.blocks` do.
    """
    with disks.open() as access:
        volume = _volume(access, disks)
        with _files(access, volume) as read:
            before = traces(read)
        note = _prepare(access, volume)
    log = "" if before.highest is not None else "; its event log cannot be read, so its shutdown has to do as proof"
    return PreparedWindows(disks, volume, before, note + log)


def _volume(access: Access, disks: OverlayDisks) -> Volume:
    found = []
    for volume in readable(disks.layout):
        with access.blocks(volume, read_only=True) as blocks:
            found += [volume] if holds_registry(blocks) else []
    chosen = choose(WindowsVolumes(tuple(found), ()), disks.layout, disks.root)
    if chosen is None:
        raise MigrationFailed("windows-root-missing", "no Windows was found", hint="Boot the guest by hand")
    return chosen


@contextmanager
def _files(access: Access, volume: Volume) -> Iterator[Reader]:
    with access.blocks(volume, read_only=True) as blocks:
        yield reader_of(blocks)


def reader_of(blocks: BlockReader) -> Reader:
    """By the reader that needs no clean file system: the machine may have been stopped.

    Raises MigrationFailed as `NtfsRecords` does; what it gives raises only the faults of `blocks`.
    """
    records = NtfsRecords(blocks)

    def read(path: str, limit: int) -> bytes | None:
        try:
            number = records.find(path)
            return b"" if number is None else records.head(number, limit)
        except MigrationFailed as failure:
            if failure.code != "ntfs-damaged":
                raise  # the host's fault: there may be a log all the same
            return None

    return read


def _prepare(access: Access, volume: Volume) -> str:
    """The note on what was changed. A guest whose settings cannot be changed boots all the same."""
    try:
        _write_settings(access, volume)
    except (MigrationFailed, OSError) as error:
        fact = error.message if isinstance(error, MigrationFailed) else str(error)
        return printable(f"its settings were booted unchanged: {fact}")
    return f"settings of its registry were changed for the proof, on a throwaway overlay ({CHANGED})"


def _write_settings(access: Access, volume: Volume) -> None:
    with ntfs_session(access, volume) as session:
        tree = GuestTree({"/": NtfsRoot(session)})
        root = tree.canonical(ROOT)
        hives = Hives(tree, f"{root}/{CONFIG}")
        prepare_settings(hives, inspect_windows(hives, root).control_set)
        hives.stage()
        tree.commit()
        changed = session.changed_blocks()
    write_changes(access, volume, changed)
