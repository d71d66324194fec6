"""Finds out whether the machine runs on a snapshot of a given disk: what was written since is not in that disk.

The evidence is in files beside the disk: snapshots that name it as their parent, and the disks in the .vmx. They are
untrusted and never required: a bounded number is opened, under the disk's mandate, and unreadable ones are ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk.file_names import family, last_part, same_name
from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.disk.sources.links import COMMON_IDS, Link, read_link
from hyper2kvmd.errors import Failure, MigrationFailed
from hyper2kvmd.host.mandate import Mandate

MAX_NAMES = 20_000
"""Names in a directory that are looked at."""
MAX_FILES = 128
"""Files beside a disk that are opened."""
MAX_SHOWN = 3
EXTENT = re.compile(r".+-(?:flat|delta|sesparse|ctk|rdmp?|[sf][0-9]{3})\.vmdk", re.IGNORECASE)
"""Files without a descriptor: some of them have content that a guest wrote."""
SUFFIXES = (".vmdk", ".vdi", ".qcow2", ".qcow")
HYPER_V = re.compile(r"(.+)_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.a(vhdx?)", re.IGNORECASE)
"""A checkpoint of Hyper-V, which removes the file when it merges the checkpoint."""


@dataclass(frozen=True)
class Newer:
    """Files that have what was written after a disk; `{names}` in the evidence is their names."""

    names: tuple[str, ...]
    evidence: str

    @property
    def fact(self) -> str:
        more = f" and {len(self.names) - MAX_SHOWN} more" if len(self.names) > MAX_SHOWN else ""
        names = ", ".join(repr(name) for name in self.names[:MAX_SHOWN])
        return f"{self.evidence.format(names=names + more)}, so it lacks what was written since that snapshot"


def check_snapshots(
    disks: Sequence[SourceFile], disk_names: Sequence[str], meant: Literal["base"] | None, mandate: Mandate
) -> tuple[str, ...]:
    """Warnings about a machine's open disks. `disk_names` are those in its .vmx, `meant` is the key `snapshot`.

    Raises MigrationFailed (`source-has-snapshot`) unless the base is meant.
    """
    concerns: list[str] = []
    for file in disks:
        beside = _links_beside(file, mandate)
        disk = _as_described(read_link(file))
        concerns += [f"{file.path}: {warning}" for warning in _warnings(disk, beside, disk_names)]
        newer = _newer(disk, beside, disk_names)
        if newer is not None and meant is None:
            raise _has_snapshot(file.path, newer, missing=newer.names[0] not in beside)
        if newer is not None:
            concerns.append(f"{file.path}: {newer.fact} (snapshot: base)")
    return tuple(concerns)


def _links_beside(file: SourceFile, mandate: Mandate) -> dict[str, Link]:
    """The links of the other disks in the directory, by name."""
    names: tuple[str, ...] = ()
    with suppress(OSError):
        names = mandate.names_in(file.path.parent, MAX_NAMES)
    found, named = {}, mandate.named_by(file.fd, file.path)
    for name in _candidates(file.path, names):
        if checkpoint := HYPER_V.fullmatch(name):
            found[name] = Link(name, parent_name=f"{checkpoint[1]}.{checkpoint[2]}")
            continue
        with suppress(Failure):
            other = open_file(file.path.with_name(name), named)
            try:
                found[name] = read_link(other)
            finally:
                os.close(other.fd)
    return found


def _candidates(disk: Path, names: Sequence[str]) -> list[str]:
    """Names of possible snapshots; those that resemble the disk's name first, MAX_FILES at most."""
    start = family(disk.name).casefold()
    likely = [name for name in names if name.isprintable() and name != disk.name and not EXTENT.fullmatch(name)]
    resembling = [name for name in likely if name.casefold().startswith((start + ".", start + "-", start + "_"))]
    others = [name for name in likely if name.lower().endswith(SUFFIXES)]
    return list(dict.fromkeys((*sorted(resembling), *sorted(others))))[:MAX_FILES]


def _as_described(link: Link) -> Link:
    """A flat extent under the name of its descriptor, which snapshots name as their parent."""
    stem, flat, _ = link.name.rpartition("-flat.vmdk")
    return Link(f"{stem}.vmdk") if flat else link


def _newer(disk: Link, beside: dict[str, Link], disk_names: Sequence[str]) -> Newer | None:
    """What the .vmx names instead of the disk; else its topmost snapshots."""
    relatives = _named_instead(disk, disk_names)
    if relatives and not any(_is_ancestor(name, disk, beside) for name in relatives):
        return Newer(relatives, "the .vmx beside it names {names} instead")
    tops = _tops(disk, beside)
    return Newer(tops, "it is the parent of {names}") if tops else None


def _warnings(disk: Link, beside: dict[str, Link], disk_names: Sequence[str]) -> list[str]:
    outdated = [child.name for child in beside.values() if _is_outdated(child, disk)]
    below = [name for name in _named_instead(disk, disk_names) if _is_ancestor(name, disk, beside)]
    return [
        *(f"its snapshot {name!r} cannot be used, because the disk was changed since" for name in outdated),
        *(f"the .vmx beside it names {name!r}, of which this disk is a snapshot" for name in below),
    ]


def _named_instead(disk: Link, disk_names: Sequence[str]) -> tuple[str, ...]:
    """The disks of the same chain that the .vmx names, unless it names this one."""
    named = [last_part(name) for name in disk_names]
    if any(same_name(name, disk.name) for name in named):
        return ()
    return tuple(name for name in named if same_name(family(name), family(disk.name)))


def _tops(disk: Link, beside: dict[str, Link]) -> tuple[str, ...]:
    """The snapshots above the disk that have none themselves."""
    tops, waiting, seen = [], [disk], {disk.name}
    while waiting:
        below = waiting.pop()
        above = [link for link in beside.values() if link.name not in seen and _is_child(link, below, beside)]
        if not above and below is not disk:
            tops.append(below.name)
        seen.update(link.name for link in above)
        waiting += above
    return tuple(sorted(tops))


def _is_child(child: Link, parent: Link, beside: dict[str, Link]) -> bool:
    """By the parent's name, unless the IDs differ; by the ID alone if no file has the name any more."""
    by_name = same_name(child.parent_name, parent.name)
    if not (child.parent_id and parent.id):
        return by_name
    if child.parent_id != parent.id:
        return False
    return by_name or (child.parent_name not in beside and parent.id not in COMMON_IDS)


def _is_outdated(child: Link, parent: Link) -> bool:
    differ = bool(child.parent_id and parent.id) and child.parent_id != parent.id
    return differ and same_name(child.parent_name, parent.name)


def _is_ancestor(name: str, disk: Link, beside: dict[str, Link]) -> bool:
    """Whether `name` is below the disk in its chain."""
    seen, link = {disk.name}, disk
    while link.has_parent:
        if same_name(link.parent_name, name):
            return True
        below = next((one for one in beside.values() if one.name not in seen and _is_child(link, one, beside)), None)
        if below is None:
            return False
        seen.add(below.name)
        link = below
    return False


def _has_snapshot(path: Path, newer: Newer, *, missing: bool) -> MigrationFailed:
    name = newer.names[0]
    wanted = f"{name}, after you have copied it to this directory" if missing else f"{path.with_name(name)}"
    return MigrationFailed(
        "source-has-snapshot",
        f"{path}: {newer.fact}",
        hint=f"Set snapshot: base to migrate the disk without it, or set vmdk to {wanted}",
    )
