"""Opens a disk at its location: the only place that decides where the bytes of a source come from.

Its format and reader are chosen in opening.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile, are_as_before, in_window, open_file, source_changed
from hyper2kvmd.disk.sources.empty import EmptySource
from hyper2kvmd.disk.sources.opening import open_source
from hyper2kvmd.disk.sources.source import DiskSource
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.model.disks import (
    ArchiveMember,
    DiskRef,
    EmptyDisk,
    FileRef,
    LocalFile,
    MemberWindow,
    SourceDisk,
    StoredFile,
    UnpackedFile,
)

SECTOR = 512


@contextlib.contextmanager
def open_disk(at: DiskRef, folder: Path, mandate: Mandate = ANYONE) -> Iterator[DiskSource]:
    """The disk, vetted and ready to be read; QEMU's socket may be made in `folder`.

    Raises as `open_stored` and `open_source` do, and MigrationFailed (`source-unsupported`, `source-corrupt`) for an
    empty disk of an impossible size.
    """
    if isinstance(at, EmptyDisk):
        yield _empty(at)
        return
    with open_stored(at, mandate) as file, open_source(file, folder, mandate_for(at, mandate)) as disk:
        yield disk


@contextlib.contextmanager
def open_stored(at: FileRef, mandate: Mandate = ANYONE) -> Iterator[SourceFile]:
    """The stored bytes, by a descriptor of their own. Raises as `open_file` and `in_window` do."""
    path = at.archive if isinstance(at, ArchiveMember) else at.path
    file = open_file(path, mandate_for(at, mandate))
    try:
        if isinstance(at, ArchiveMember):
            file = in_window(file, MemberWindow(member=at.member, first=at.offset, length=at.length))
        yield file
    finally:
        os.close(file.fd)


@contextlib.contextmanager
def open_again(stored: StoredFile, mandate: Mandate = ANYONE) -> Iterator[SourceFile]:
    """The file that was found before, which does not change during the block.

    Raises as `open_stored` does, and MigrationFailed (`source-changed`) for another file, and at the end of the block.
    """
    with open_stored(stored.at, mandate) as file:
        if file.identity != stored.identity:
            raise source_changed(stored.at)
        yield file
        file.require_unchanged()


def mandate_for(at: FileRef, mandate: Mandate) -> Mandate:
    """The rights by which it is opened: a file that another one names is judged for the owner of that one as well.

    A file in the working folder was made by this job, and nobody else can reach it.
    """
    if isinstance(at, UnpackedFile):
        return ANYONE
    if isinstance(at, LocalFile) and at.named_by is not None:
        return mandate.named_by_owner(at.named_by.path, at.named_by.uid)
    return mandate


def is_as_before(disk: SourceDisk, mandate: Mandate) -> bool:
    """Whether the files of a planned disk can still be opened and are unchanged."""
    return isinstance(disk.at, EmptyDisk) or are_as_before(disk.files, mandate_for(disk.at, mandate))


def _empty(at: EmptyDisk) -> EmptySource:
    path = Path(str(at))
    faults.check_disk_size(path, at.size)
    if at.size % SECTOR:
        raise faults.corrupt(path, f"it has {at.size} bytes, not a whole number of {SECTOR}-byte sectors")
    return EmptySource(at.size)
