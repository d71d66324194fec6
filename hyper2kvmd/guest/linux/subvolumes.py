"""Read-only subvolumes of btrfs, which a repair makes writable for its edits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hyper2kvmd.guest.files.root import ConfinedRoot


@contextmanager
def writable_subvolume(root: ConfinedRoot) -> Iterator[None]:
    """Inside this block, a read-only subvolume is writable. Raises OSError."""
    if not root.is_read_only_subvolume():
        yield
        return
    root.set_read_only_subvolume(read_only=False)
    try:
        yield
    finally:
        root.set_read_only_subvolume(read_only=True)
