"""Finds out whether the machine runs on a snapshot of a given disk: what was written since is not in that disk.

The evidence is in files beside the disk: snapshots that name it as their parent, and the disks in the .vmx. They are
untrusted and never required: a bounded number is opened, under the disk's mandate, and unreadable ones are ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from hyper2kvmd.disk.file_names import SNAPSHOT_NUMBER, descriptor_of, family, last_part, same_name
from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.disk.sources.links import COMMON_IDS, Link, read_link
from hyper2kvmd.disk.sources.opening import RAW_SUFFIXES
from hyper2kvmd.errors import Failure, MigrationFailed
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.model.concerns import Concern

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
class Beside:
    """The directory of a disk."""

    names: frozenset[str]
    """Of all files, casefolded."""
    links: Mapping[str, Link]
    """Of the other disks that could be read, by name."""


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
    disks: Sequence[SourceFile], disk_names: Sequence[str], meant: str | None, mandate: Mandate
) -> tuple[Concern, ...]:
    """Concerns about a machine's open disks. `disk_names` are those in its .vmx, `meant` is the key `snapshot`.

    Raises MigrationFailed (`source-has-snapshot`) if `meant` is None.
    """
    concerns: list[Concern] = []
    for file in disks:
        beside = _read_beside(file, mandate)
        disk = _as_described(read_link(file))
        for warning in _warnings(disk, beside, disk_names):
            concerns.append(
                Concern(
                    code="snapshot-doubtful",
                    message=f"{file.path}: {warning}",
                    hint="Compare the disk with the one that the machine runs on in vSphere",
                )
            )
        newer = _newer(disk, beside, disk_names)
        if newer is not None and meant is None:
            raise _has_snapshot(file.path, newer, missing=newer.names[0] not in beside.links)
        if newer is not None:
            fact = f"{file.path}: {newer.fact} (snapshot: base)"
            hint = "Remove snapshot to migrate the current state of the machine"
            concerns.append(Concern(code="snapshot-left-out", message=fact, hint=hint))
    return tuple(concerns)


def _read_beside(file: SourceFile, mandate: Mandate) -> Beside:
    if file.is_member:  # an export contains the machine's current disks
        return Beside(frozenset(), {})
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
    return Beside(frozenset(name.casefold() for name in names), found)


def _candidates(disk: Path, names: Sequence[str]) -> list[str]:
    """Names of possible snapshots; those that resemble the disk's name first, MAX_FILES at most."""
    start = family(disk.name).casefold()
    likely = [name for name in names if name.isprintable() and name != disk.name and not _is_raw(name)]
    resembling = [name for name in likely if name.casefold().startswith((start + ".", start + "-", start + "_"))]
    others = [name for name in likely if name.lower().endswith(SUFFIXES)]
    return list(dict.fromkeys((*sorted(resembling), *sorted(others))))[:MAX_FILES]


def _is_raw(name: str) -> bool:
    """Whether a guest writes the content from the first byte, and could write a descriptor there."""
    return name.lower().endswith(RAW_SUFFIXES) or EXTENT.fullmatch(name) is not None


def _as_described(link: Link) -> Link:
    """A flat extent under the name of its descriptor, which snapshots name as their parent."""
    descriptor = descriptor_of(link.name)
    return Link(descriptor) if descriptor else link


def _newer(disk: Link, beside: Beside, disk_names: Sequence[str]) -> Newer | None:
    """What the .vmx names instead of the disk; else its topmost snapshots."""
    relatives = tuple(name for name in _named_instead(disk, disk_names) if _may_be_newer(name, disk, beside))
    if relatives and not any(_is_ancestor(name, disk, beside) for name in relatives):
        return Newer(relatives, "the .vmx beside it names {names} instead")
    tops = _tops(disk, beside)
    return Newer(tops, "it is the parent of {names}") if tops else None


def _warnings(disk: Link, beside: Beside, disk_names: Sequence[str]) -> list[str]:
    outdated = [child.name for child in beside.links.values() if _is_outdated(child, disk)]
    similar = [child for child in beside.links.values() if _may_be_child(child, disk, beside)]
    below = [name for name in _named_instead(disk, disk_names) if _is_ancestor(name, disk, beside)]
    return [
        *(f"its snapshot {name!r} cannot be used, because the disk was changed since" for name in outdated),
        *(
            f"{child.name!r} may be its snapshot: the parent {child.parent_name or 'without a name'!r} is not in the"
            f" directory, and has the CID of this disk, {disk.id}"
            for child in similar
        ),
        *(f"the .vmx beside it names {name!r}, of which this disk is a snapshot" for name in below),
    ]


def _named_instead(disk: Link, disk_names: Sequence[str]) -> tuple[str, ...]:
    """The disks of the same chain that the .vmx names, unless it names this one."""
    named = [last_part(name) for name in disk_names]
    if any(same_name(name, disk.name) for name in named):
        return ()
    return tuple(name for name in named if same_name(family(name), family(disk.name)))


def _may_be_newer(name: str, disk: Link, beside: Beside) -> bool:
    """Whether a disk that the .vmx names can depend on the given one; six digits in a name alone do not show it.

    A snapshot may be the base of another branch, so of a disk with a parent every relative counts.
    """
    if disk.has_parent:
        return True
    link = next((one for one in beside.links.values() if same_name(one.name, name)), None)
    if link is None:
        return SNAPSHOT_NUMBER.fullmatch(PurePath(name).stem) is not None
    return not _ends_elsewhere(link, beside)


def _ends_elsewhere(link: Link, beside: Beside) -> bool:
    """Whether all disks of this chain are beside the given disk: then it does not contain that one.

    A file without an ID is damaged or not a VMDK, and shows nothing.
    """
    seen = {link.name}
    while link.has_parent:
        below = next((one for one in beside.links.values() if one.name not in seen and _is_child(link, one)), None)
        if below is None:
            return False
        seen.add(below.name)
        link = below
    return bool(link.id)


def _tops(disk: Link, beside: Beside) -> tuple[str, ...]:
    """The snapshots above the disk that have none themselves."""
    tops, waiting, seen = [], [disk], {disk.name}
    while waiting:
        below = waiting.pop()
        above = [link for link in beside.links.values() if link.name not in seen and _is_child(link, below)]
        if not above and below is not disk:
            tops.append(below.name)
        seen.update(link.name for link in above)
        waiting += above
    return tuple(sorted(tops))


def _is_child(child: Link, parent: Link) -> bool:
    """By the parent's name, unless the IDs differ; by the ID alone if it is unique."""
    by_name = same_name(child.parent_name, parent.name)
    if not (child.parent_id and parent.id):
        return by_name
    return child.parent_id == parent.id and (by_name or parent.has_unique_id)


def _may_be_child(child: Link, parent: Link, beside: Beside) -> bool:
    """By the CID alone: the parent was renamed, or it is elsewhere and this disk is a copy of it."""
    if _is_child(child, parent) or not parent.id or parent.id in COMMON_IDS:
        return False
    return child.parent_id == parent.id and child.parent_name.casefold() not in beside.names


def _is_outdated(child: Link, parent: Link) -> bool:
    differ = bool(child.parent_id and parent.id) and child.parent_id != parent.id
    return differ and same_name(child.parent_name, parent.name)


def _is_ancestor(name: str, disk: Link, beside: Beside) -> bool:
    """Whether `name` is below the disk in its chain."""
    seen, link = {disk.name}, disk
    while link.has_parent:
        if same_name(link.parent_name, name):
            return True
        below = next((one for one in beside.links.values() if one.name not in seen and _is_child(link, one)), None)
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
