"""What differs between mounted file systems: ext4's reserve, read-only subvolumes of btrfs, the flags of chattr(1).

Each function gets an open file or folder of the file system.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import sys

from hyper2kvmd.guest.files.interface import FreeSpace

BTRFS_IOC_SUBVOL_GETFLAGS = 0x80089419
BTRFS_IOC_SUBVOL_SETFLAGS = 0x4008941A
BTRFS_SUBVOL_RDONLY = 2
"""linux/btrfs.h"""
NOT_A_SUBVOLUME = (errno.ENOTTY, errno.EINVAL)
"""Errors of the first ioctl on another file system, and on a folder that is no subvolume."""
FS_IOC_GETFLAGS = 0x80086601
ATTRIBUTES = {0x10: "immutable", 0x20: "append-only"}
"""Flags of chattr(1) that forbid even root a change. Source: linux/fs.h."""
EXT4_MAGIC = 0xEF53
EXT4_OWN_SHARE, EXT4_OWN_MOST = 50, 4096
"""The kernel keeps a share of the blocks for ext4's metadata. Source: ext4_calculate_resv_clusters."""
STATFS_BYTES = 256

libc = ctypes.CDLL(None, use_errno=True)


def free_space(handle: int) -> FreeSpace:
    """What ext4 reserves for root counts: the helper mounts it so that we may use that. Raises OSError."""
    room = os.fstatvfs(handle)
    blocks = room.f_bavail
    if _is_ext4(handle):
        blocks = max(blocks, room.f_bfree - min(room.f_blocks // EXT4_OWN_SHARE, EXT4_OWN_MOST))
    return FreeSpace(blocks * room.f_frsize, room.f_ffree if room.f_files else None)


def held_by(handle: int) -> str | None:
    """The attribute that forbids a change of the file, even to root. Raises OSError."""
    flags = int.from_bytes(fcntl.ioctl(handle, FS_IOC_GETFLAGS, bytes(8))[:4], sys.byteorder)
    return next((name for flag, name in ATTRIBUTES.items() if flags & flag), None)


def is_read_only_subvolume(handle: int) -> bool:
    """Whether the folder is a btrfs subvolume with the property `ro` (MicroOS, SLE Micro). Raises OSError."""
    return bool(_subvolume_flags(handle) & BTRFS_SUBVOL_RDONLY)


def set_read_only_subvolume(handle: int, *, read_only: bool) -> None:
    """Set the property `ro` of a btrfs subvolume, which its owner may do; its other flags stay. Raises OSError."""
    others = _subvolume_flags(handle) & ~BTRFS_SUBVOL_RDONLY
    fcntl.ioctl(handle, BTRFS_IOC_SUBVOL_SETFLAGS, struct.pack("Q", others | (BTRFS_SUBVOL_RDONLY * read_only)))


def _subvolume_flags(handle: int) -> int:
    flags = bytearray(8)
    try:
        fcntl.ioctl(handle, BTRFS_IOC_SUBVOL_GETFLAGS, flags)
    except OSError as error:
        if error.errno not in NOT_A_SUBVOLUME:
            raise
        return 0
    return int.from_bytes(flags, sys.byteorder)


def _is_ext4(handle: int) -> bool:
    facts = ctypes.create_string_buffer(STATFS_BYTES)
    if libc.fstatfs(ctypes.c_int(handle), facts) != 0:
        return False
    (magic,) = struct.unpack_from("l", facts.raw)
    return bool(magic == EXT4_MAGIC)
