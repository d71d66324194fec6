"""Stale FUSE mounts, as nbdfuse leaves one when it is killed while fusermount3 mounts."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd.host.removal import MNT_DETACH, mounts_below

libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def stale_mount(folder: Path, uid: int) -> Iterator[Path]:
    """`folder`/export-abcdefgh/fuse, mounted for that user by a server that is gone."""
    path = folder / "export-abcdefgh/fuse"
    path.mkdir(parents=True)
    for made in (path.parent, path):
        os.chown(made, uid, -1)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={server},rootmode=40000,user_id={uid},group_id={uid}".encode()
    done = libc.mount(b"/dev/fuse", os.fsencode(path), b"fuse", 6, options)
    os.close(server)
    assert done == 0, os.strerror(ctypes.get_errno())
    try:
        yield path
    finally:
        if mounts_below(path):
            libc.umount2(os.fsencode(path), MNT_DETACH)
