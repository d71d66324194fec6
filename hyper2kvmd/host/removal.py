"""Removes directory trees that killed processes have left, through descriptors.

No link is followed and no other file system is entered: somebody may have mounted one there. Stale FUSE mounts of the
tree's owner are detached first. A worker that was killed while nbdfuse mounted leaves one, and it cannot be removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Failure
from hyper2kvmd.host import run
from hyper2kvmd.host.person import name_of

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_DEPTH = 64
"""Of a tree; ours have up to 10 levels, and each one takes a descriptor."""
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
"""umount2(2)."""
MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)", re.MULTILINE)
FUSE_OWNER = re.compile(r"(?:^|,)user_id=(\d+)(?:,|$)")


@dataclass(frozen=True)
class SeenMount:
    """A mount that this process sees."""

    path: Path
    fstype: str
    fuse_owner: int | None
    """The uid that mounted a FUSE file system."""


def mounts_below(folder: Path) -> tuple[SeenMount, ...]:
    """The mounts at or below the folder, the innermost first. The path has no links."""
    lines = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape").splitlines()
    found = [one for one in map(_seen, lines) if one.path.is_relative_to(folder)]
    return tuple(sorted(found, key=lambda one: len(one.path.parts), reverse=True))


def _seen(line: str) -> SeenMount:
    """Source: proc(5), /proc/pid/mountinfo."""
    fixed, _, kind = line.partition(" - ")
    fstype, _, options = kind.split(" ", 2)
    owner = FUSE_OWNER.search(options.rpartition(" ")[2]) if fstype.startswith("fuse") else None
    path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fixed.split(" ")[4])
    return SeenMount(Path(path), fstype, int(owner[1]) if owner else None)


def detach_stale(folder: int, *, dry_run: bool = False) -> tuple[Path, ...]:
    """Detach the FUSE mounts of its owner below an open folder, whose lock the caller holds; returns their paths.

    A mount that cannot be detached stays: the removal of the folder reports it.
    """
    path, owner = name_of(folder), os.fstat(folder).st_uid
    stale = [one.path for one in mounts_below(path) if one.fuse_owner == owner and one.path != path]
    return tuple(one for one in stale if dry_run or _detached(folder, one, one.relative_to(path)))


def _detached(folder: int, path: Path, below: Path) -> bool:
    if os.geteuid() != 0:
        with contextlib.suppress(Failure):
            return run.run(["fusermount3", "-u", "-z", str(path)], check=False).returncode == 0
        return False
    with contextlib.suppress(OSError), _opened_below(folder, below.parent) as parent:
        target = f"/proc/self/fd/{parent}/{below.name}".encode(errors="surrogateescape")
        return bool(ctypes.CDLL(None).umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
    return False


@contextlib.contextmanager
def _opened_below(folder: int, path: Path) -> Iterator[int]:
    """Root must not follow a link that the owner of the folder puts there. Raises OSError."""
    handle = os.dup(folder)
    try:
        for name in path.parts:
            below = os.open(name, OPEN_DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def remove_tree(parent: int, name: str) -> None:
    """Remove the directory `name` in the open directory `parent`.

    Raises OSError; EBUSY, with nothing removed, for a tree with a mount in it.
    """
    handle = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    try:
        mounted = mounts_below(name_of(handle))
        if mounted:
            raise OSError(errno.EBUSY, f"{mounted[0].fstype} is mounted on {mounted[0].path}")
        _empty(handle, _mount_id(parent), MAX_DEPTH)
    finally:
        os.close(handle)
    os.rmdir(name, dir_fd=parent)


def _empty(handle: int, mount: int, depth: int) -> None:
    """Removes as much as possible. Raises the first OSError at the end."""
    if depth == 0:
        raise OSError(errno.ELOOP, f"it has more than {MAX_DEPTH} levels of directories")
    if _mount_id(handle) != mount:  # a bind mount may have the same device number
        raise OSError(errno.EBUSY, f"another file system is mounted on {name_of(handle)}")
    errors: list[OSError] = []
    for name in os.listdir(handle):
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                _empty_below(handle, name, mount, depth - 1)
                os.rmdir(name, dir_fd=handle)
            else:
                os.unlink(name, dir_fd=handle)
        except OSError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _empty_below(parent: int, name: str, mount: int, depth: int) -> None:
    handle = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    try:
        _empty(handle, mount, depth)
    finally:
        os.close(handle)


def _mount_id(handle: int) -> int:
    found = MOUNT_ID.search(Path(f"/proc/self/fdinfo/{handle}").read_bytes())
    assert found is not None  # noqa: S101 - proc(5): since Linux 3.15
    return int(found[1])
