"""Errors of source files, with their messages.

`source-truncated` is a file that ends too early, `source-corrupt` one whose bytes contradict themselves; both name the
byte and the file.
"""

from __future__ import annotations

import errno
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed

STORAGE_ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO)
LARGEST_DISK = 64 << 40
"""Bytes: the largest virtual disk in Hyper-V ([MS-VHDX], section 2.6.2.2). vSphere's limit is 62 TiB."""


LARGEST_NUMBER_OF_EXTENTS = 8192
"""Of a chain: the largest disk of VMware Workstation (8 TiB in pieces of 2 GiB) with a snapshot. Each extent costs half
a kilobyte of memory."""


def missing(path: Path, namer: Path | None) -> MigrationFailed:
    """`namer` is the file that names it: a descriptor its extents, a snapshot its parent."""
    fact, hint = f"{path} does not exist", "Correct the path, or wait for the export to end, then retry"
    if namer is not None:
        fact = f"{fact}, but {namer} names it as a part of the disk"
        hint = f"Copy {path.name} beside {namer.name}, or wait for the export to end, then retry"
    return MigrationFailed("source-missing", fact, hint=hint)


def truncated(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "source-truncated",
        f"{path} is incomplete: {fact}",
        hint="Compare its size with the original's, then copy or export it again",
    )


def corrupt(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "source-corrupt",
        f"{path} is corrupt: {fact}",
        hint="Compare its checksum with the export's manifest, then copy or export it again",
    )


def overfull(path: Path) -> MigrationFailed:
    """Tables that name the same bytes repeatedly, and so describe an endless disk."""
    return corrupt(path, "its tables name more data than the file has bytes")


def not_vmdk(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed("source-not-vmdk", f"{path} is damaged or not a VMDK: {fact}", hint="Export the disk again")


def unsupported(path: Path, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("source-unsupported", f"{path} {fact}", hint=hint)


def too_many_extents(path: Path) -> MigrationFailed:
    return MigrationFailed(
        "source-too-complex",
        f"{path}: the disk and its parents have more than {LARGEST_NUMBER_OF_EXTENTS} extents",
        hint="Join the extents into one file: `vmware-vdiskmanager -r web01.vmdk -t 0 joined.vmdk`",
    )


def is_extent(path: Path, descriptor: str | None = None) -> MigrationFailed:
    """`descriptor` is the name of the file to use instead."""
    return MigrationFailed(
        "source-extent",
        f"{path} is one extent of a disk, not the disk",
        hint=f"Use {descriptor or 'the small .vmdk descriptor file'} in the same directory",
    )


def unclean(path: Path, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("source-unclean", f"{path} {fact}", hint=hint)


def unreadable(path: Path, error: OSError) -> MigrationFailed:
    """A source that cannot be opened: by this user, or because of its storage."""
    if error.errno in STORAGE_ERRORS:
        return MigrationFailed(
            "disk-read-failed",
            f"{path} cannot be read: {error.strerror}",
            hint="Check the storage that holds it (dmesg names the device), then retry",
            kind=Kind.OPERATOR,
        )
    return MigrationFailed(
        "source-unreadable",
        f"{path} cannot be read: {error.strerror}",
        hint="Copy the source to a directory that the user that runs the migration can read",
    )


def has_parent(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "source-has-parent",
        f"{path} {fact}",
        hint="Merge it with the hypervisor that created it, or with qemu-img convert, then use the merged disk",
    )


def differencing(path: Path, parent: str = "") -> MigrationFailed:
    """A VHD or VHDX with a parent, which QEMU reads as if there were none."""
    of = f" of {parent[:200]!r}" if parent else ""
    return MigrationFailed(
        "source-has-parent",
        f"{path} is a differencing disk: it contains only the differences from its parent{of}",
        hint="Merge it into its parent first (Merge-VHD on Hyper-V), then use the merged disk",
    )


def check_disk_size(path: Path, size: int) -> None:
    """Refuse a disk that is too large: MigrationFailed (`source-unsupported`)."""
    if size > LARGEST_DISK:
        raise unsupported(
            path,
            f"describes a disk of {size} bytes, more than {LARGEST_DISK}",
            "Check the file: disks have at most 64 TiB (Hyper-V; vSphere: 62 TiB)",
        )
