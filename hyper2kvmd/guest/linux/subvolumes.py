"""Read-only subvolumes of btrfs, which a repair makes writable for its edits.

A note in the working folder survives a killed repair: the next attempt on the same image sets the property again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.host.files import write_durably

NOTE = "read-only-subvolumes.json"


@dataclass(frozen=True)
class Subvolumes:
    """`folder` keeps the note; None for throwaway overlays, which need none."""

    folder: Path | None

    def noted(self) -> frozenset[str]:
        """The subvolumes that were read-only and may be writable now. Raises OSError."""
        path = self._path
        return frozenset(json.loads(path.read_text())) if path is not None and path.exists() else frozenset()

    @contextmanager
    def writable(self, name: str, root: ConfinedRoot) -> Iterator[None]:
        """Inside this block, a read-only subvolume with this name is writable. Raises OSError."""
        if root.is_read_only_subvolume():
            self._write(self.noted() | {name})
        elif name not in self.noted():
            yield
            return
        root.set_read_only_subvolume(read_only=False)
        try:
            yield
        finally:
            root.set_read_only_subvolume(read_only=True)
            self._write(self.noted() - {name})

    @property
    def _path(self) -> Path | None:
        return self.folder / NOTE if self.folder is not None else None

    def _write(self, names: frozenset[str]) -> None:
        if self._path is not None:
            write_durably(self._path, json.dumps(sorted(names)))
