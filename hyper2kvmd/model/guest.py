"""The guest on the disks: what it is and what was repaired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Self

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.machine import DiskBus, NicModel, Rtc

FSTAB_KEPT, WARNING_KEPT = 64 << 10, 1000
"""Characters of one text."""
DIFFS_KEPT = 256 << 10
"""Characters of all diffs together."""
WARNINGS_KEPT = 200


class Change(Frozen):
    """One edit of a guest file, made by one fix."""

    fix: str
    path: str
    summary: str
    diff: str = ""
    """Unified diff for text; one line of facts for binary files."""


class Nic(Frozen):
    """A network card of the migrated machine."""

    name: str | None
    """What the guest will call its interface; None when nothing in the guest asks for a name."""
    mac: str


class Capabilities(Frozen):
    """The devices that the guest has drivers for when it boots next, and how it reads the clock."""

    disk_bus: DiskBus = "virtio"
    nic_model: NicModel = "virtio"
    rtc: Rtc = "utc"


class Guest(Frozen):
    """What the disk holds, what was repaired and what could not be."""

    family: Literal["linux", "windows", "none"] = "linux"
    os_id: str = ""
    os_name: str = ""
    hostname: str = ""
    architecture: str = ""
    kernels: tuple[str, ...] = ()
    boot_loader: str = ""
    root: str = ""
    nics: tuple[Nic, ...] = ()
    """In the order of their places on the bus."""
    fstab_before: str = ""
    fstab_after: str = ""
    capabilities: Capabilities = Capabilities()
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()

    def shortened(self) -> Self:
        """With as much of texts, diffs and warnings as is kept on record and reported."""
        return self.with_changes(
            fstab_before=_begin(self.fstab_before, FSTAB_KEPT),
            fstab_after=_begin(self.fstab_after, FSTAB_KEPT),
            changes=tuple(_with_diffs_up_to(self.changes, DIFFS_KEPT)),
            warnings=tuple(_first(self.warnings)),
        )


def _begin(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "\n... (shortened)"


def _with_diffs_up_to(changes: Iterable[Change], left: int) -> Iterator[Change]:
    """All changes; diffs as long as there is room for them."""
    for change in changes:
        if len(change.diff) <= left:
            left -= len(change.diff)
            yield change
        else:
            yield change.with_changes(diff="... (left out: the diffs of this guest are too long)")


def _first(warnings: Sequence[str]) -> Iterator[str]:
    yield from (_begin(warning, WARNING_KEPT) for warning in warnings[:WARNINGS_KEPT])
    if len(warnings) > WARNINGS_KEPT:
        yield f"and {len(warnings) - WARNINGS_KEPT} more warnings"
