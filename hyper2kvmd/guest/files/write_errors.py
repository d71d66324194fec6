"""What prevented a change of the guest's files, each cause with its own remedy."""

from __future__ import annotations

import errno

from hyper2kvmd import units
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.interface import FreeSpace

FULL = (errno.ENOSPC, errno.EDQUOT)


def full(mount_point: str, space: FreeSpace, needed: FreeSpace) -> MigrationFailed:
    free, wanted = units.size(space.bytes), units.size(needed.bytes)
    if space.inodes is not None:
        free += f" and {space.inodes} inodes"
        wanted += f" and {needed.inodes} inodes"
    return MigrationFailed(
        "guest-full",
        f"the guest's file system {mount_point} is full: {free} are free, {wanted} are needed",
        hint=f"Free space on {mount_point} in the guest (old kernels, logs, caches) or enlarge it, then convert again",
    )


def held(path: str, attribute: str) -> MigrationFailed:
    letter = {"immutable": "i", "append-only": "a"}[attribute]
    return MigrationFailed(
        "guest-file-held",
        f"the guest's {path} is {attribute} (chattr +{letter}), so it cannot be changed",
        hint=f"Run `chattr -{letter} {path}` in the guest, then convert again; set it again after the migration",
    )


def failed(path: str, mount_point: str, error: OSError, space: FreeSpace, needed: FreeSpace) -> MigrationFailed:
    if error.errno in FULL:
        return full(mount_point, space, needed)
    if error.errno == errno.EROFS:
        return MigrationFailed(
            "guest-read-only",
            f"the guest's {path} could not be written: {mount_point} is a read-only snapshot or subvolume",
            hint=f"Make it writable in the guest (`btrfs property set {mount_point} ro false`), then convert again",
        )
    hint = "Check the file system in the guest (fsck), then convert again"
    if error.errno in (errno.EPERM, errno.EACCES):
        hint = "Look for attributes (lsattr) and access rules on it and its directory in the guest, then convert again"
    return MigrationFailed(
        "guest-write-failed", f"the guest's {path} could not be written: {error.strerror}", hint=hint
    )
