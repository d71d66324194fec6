"""Errors of the storage under a copy, each with a remedy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.space import FULL, disk_full


def read_failure(error: OSError, guest: int) -> MigrationFailed:
    return MigrationFailed(
        "disk-read-failed",
        f"the source cannot be read at offset {guest} of the disk: {os.strerror(error.errno or errno.EIO)}",
        hint="Check the storage that holds the source, or export it again",
        kind=Kind.OPERATOR,
    )


def short_read(guest: int, wanted: int, got: int) -> MigrationFailed:
    return MigrationFailed(
        "content-incomplete",
        f"the source returned {got} of the {wanted} bytes at offset {guest} of the disk",
        hint="Export the disk again: its file ends too early or is damaged",
    )


def write_failure(error: OSError, image: Path, offset: int) -> MigrationFailed:
    if error.errno in FULL:
        return disk_full(image.parent)
    return MigrationFailed(
        "disk-write-failed",
        f"{image} cannot be written at offset {offset}: {os.strerror(error.errno or errno.EIO)}",
        hint="Check the storage that holds the conversion directory, then retry",
        kind=Kind.OPERATOR,
    )


def cannot_reserve(error: OSError, image: Path, size: int) -> MigrationFailed:
    if error.errno in FULL:
        return disk_full(image.parent)
    return MigrationFailed(
        "reserve-failed",
        f"the file system that holds {image} cannot reserve {size} bytes: {os.strerror(error.errno or errno.EIO)}",
        hint="Name a conversion directory on ext4, XFS or btrfs, or set sparse: always",
        kind=Kind.OPERATOR,
    )
