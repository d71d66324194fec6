"""A machine's source disks, opened once and kept open for every stage that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from hyper2kvmd.disk.files import source_changed
from hyper2kvmd.disk.sources.source import DiskSource
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host import space
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.model.disks import DiskRef, FileIdentity, SourceDisk
from hyper2kvmd.model.orders import SpaceNeeded


class Sources:
    """Opens the disks of one machine at first use, and closes them at the end of its block.

    QEMU's sockets may be made in `folder`, and packed disks unpacked there: `admit` is asked before.
    """

    def __init__(
        self, folder: Path, mandate: Mandate = ANYONE, admit: Callable[[SpaceNeeded], None] | None = None
    ) -> None:
        self.folder, self.mandate = folder, mandate
        self._admit = admit
        self._stack = ExitStack()
        self._opened: tuple[DiskSource, ...] = ()

    def __enter__(self) -> Sources:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def require_space(self, total: int) -> None:
        """Raise TryLater (`space-short`) if the files in `folder` cannot occupy `total` bytes in all."""
        if self._admit is None:
            space.require_growth(self.folder, total, reserve="0")
        else:
            self._admit(SpaceNeeded(conversion_bytes=total))

    def close(self) -> None:
        """Close the disks: no later stage needs them."""
        self._stack.close()
        self._opened = ()

    def open(self, disks: Sequence[DiskRef]) -> tuple[DiskSource, ...]:
        """The machine's disks, vetted and open.

        Raises as `open_disk` does, and MigrationFailed (`source-repeated`) for a file that two of them use.
        """
        from hyper2kvmd.disk.sources.location import open_disk  # with all readers

        if not self._opened:
            opened: dict[DiskRef, DiskSource] = {}
            for at in disks:
                disk = self._stack.enter_context(open_disk(at, self.folder, self.mandate))
                _require_apart(at, disk, opened)
                opened[at] = disk
            self._opened = tuple(opened.values())
        return self._opened

    def planned(self, disks: Sequence[SourceDisk]) -> tuple[DiskSource, ...]:
        """The disks as they were planned, by this attempt or an earlier one.

        Raises MigrationFailed (`source-changed`) before anything is copied from another file, and as `open` does.
        """
        opened = self.open([disk.at for disk in disks])
        for disk, source in zip(disks, opened, strict=True):
            if source.identity != disk.files:
                raise source_changed(disk.at)
            source.require_unchanged()
        return opened


def describe(at: DiskRef, source: DiskSource) -> SourceDisk:
    """The model of an open disk. Raises as `DiskSource.data_bytes` does."""
    return SourceDisk(
        at=at,
        format=source.format,
        subformat=source.subformat,
        serial=source.serial,
        virtual_size=source.virtual_size,
        data_bytes=source.data_bytes,
        files=source.identity,
        concerns=source.concerns,
    )


def _require_apart(at: DiskRef, disk: DiskSource, others: Mapping[DiskRef, DiskSource]) -> None:
    files: dict[tuple[int, int], list[FileIdentity]] = {}
    for file in disk.identity:
        files.setdefault((file.device, file.inode), []).append(file)
    for other_at, other in others.items():
        for file in other.identity:
            for own in files.get((file.device, file.inode), ()):
                if own.overlaps(file):
                    raise MigrationFailed(
                        "source-repeated",
                        f"{other_at} and {at} both use {own.path}",
                        hint="Name each disk of the machine once, and only the topmost snapshot of a chain",
                    )
