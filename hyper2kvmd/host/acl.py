"""POSIX access control lists, read and extended through the kernel's extended attribute.

Sources: acl(5); linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path

ATTRIBUTE = "system.posix_acl_access"
DEFAULT_ATTRIBUTE = "system.posix_acl_default"
VERSION = struct.Struct("<I")
ENTRY = struct.Struct("<HHI")
OWNER, USER, OWNING_GROUP, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
MASKED = (USER, OWNING_GROUP, GROUP)
"""The entries that a mask limits."""
NO_ID = 0xFFFFFFFF
NO_LIST = (errno.ENODATA, errno.ENOTSUP)


@dataclass(frozen=True)
class AclEntry:
    tag: int
    granted: int
    """Permission bits: 4 read, 2 write, 1 search."""
    number: int = NO_ID
    """The uid or gid of a USER or GROUP entry."""


def entries(file: int | Path) -> tuple[AclEntry, ...]:
    """Of an open file or a path; empty if it has no list or its file system no ACLs. Raises OSError."""
    try:
        data = os.getxattr(_path(file), ATTRIBUTE)
    except OSError as error:
        if error.errno in NO_LIST:
            return ()
        raise
    return tuple(AclEntry(tag, granted, number) for tag, granted, number in ENTRY.iter_unpack(data[VERSION.size :]))


def grant(handle: int, added: AclEntry) -> None:
    """Add an entry for one user or one group to the open file. No one else's rights change.

    Raises OSError (ENOTSUP).
    """
    mode = os.fstat(handle).st_mode
    before = entries(handle) or (
        AclEntry(OWNER, mode >> 6 & 7),
        AclEntry(OWNING_GROUP, mode >> 3 & 7),
        AclEntry(OTHER, mode & 7),
    )
    mask = mode >> 3 & 7  # in the mode of a file with a list
    replaced = (AclEntry(MASK, mask | added.granted), added)
    named = {(entry.tag, entry.number) for entry in replaced}
    kept = [_masked(entry, mask) for entry in before if (entry.tag, entry.number) not in named]
    wanted = sorted([*kept, *replaced], key=lambda entry: (entry.tag, entry.number))
    os.setxattr(_path(handle), ATTRIBUTE, _packed(wanted))


def has_default(folder: Path) -> bool:
    """Whether the folder has a list for new files; True if its file system has no ACLs. Raises OSError."""
    try:
        os.getxattr(folder, DEFAULT_ATTRIBUTE)
    except OSError as error:
        if error.errno not in NO_LIST:
            raise
        return error.errno == errno.ENOTSUP
    return True


def let_group_read_new_files(folder: Path) -> None:
    """Make new files in `folder` readable for its group and writable for the owner only, whatever the umask.

    No effect on a file system without ACLs. Raises OSError.
    """
    try:
        os.setxattr(
            folder, DEFAULT_ATTRIBUTE, _packed([AclEntry(OWNER, 7), AclEntry(OWNING_GROUP, 5), AclEntry(OTHER, 0)])
        )
    except OSError as error:
        if error.errno not in NO_LIST:
            raise


def _packed(wanted: list[AclEntry]) -> bytes:
    return VERSION.pack(2) + b"".join(ENTRY.pack(entry.tag, entry.granted, entry.number) for entry in wanted)


def _masked(entry: AclEntry, mask: int) -> AclEntry:
    """The entry reduced to its effective rights, so that a wider mask adds none."""
    return replace(entry, granted=entry.granted & mask) if entry.tag in MASKED else entry


def _path(file: int | Path) -> str | Path:
    """Under this name, a directory opened with O_PATH has attributes as well."""
    return f"/proc/self/fd/{file}" if isinstance(file, int) else file
