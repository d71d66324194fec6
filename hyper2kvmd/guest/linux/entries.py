"""Boot loader entries of type 1: text files that name a kernel and its initrds on their own partition.

Source: the Boot Loader Specification.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.guest.files.tree import GuestTree

BOOTS = ("/boot", "/efi", "/boot/efi")
"""Possible mount points of a partition with entries."""


@dataclass(frozen=True)
class BootEntry:
    """Paths are the guest's. `version` is empty if the entry does not contain it."""

    version: str
    linux: str
    initrds: tuple[str, ...]

    def is_of(self, version: str) -> bool:
        names = (posixpath.basename(self.linux), posixpath.basename(posixpath.dirname(self.linux)))
        return self.version == version or any(name == version or name.endswith(f"-{version}") for name in names)


def entries(tree: GuestTree) -> Iterator[BootEntry]:
    for boot in BOOTS:
        for path in tree.glob(f"{boot}/loader/entries/*.conf"):
            words = [line.split(None, 1) for line in tree.text_or_empty(path).split("\n")]
            told = [(word[0], word[1].strip()) for word in words if len(word) == 2]
            values = dict(reversed(told))
            yield BootEntry(
                values.get("version", ""),
                posixpath.normpath(f"{boot}/{values.get('linux', '')}"),
                tuple(posixpath.normpath(f"{boot}/{value}") for key, value in told if key == "initrd"),
            )
