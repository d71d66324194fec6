"""The snapshots of a machine, from its .vmsd: which disks each of them froze."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.machines.vmx.places import DEVICE
from hyper2kvmd.machines.vmx.settings import Settings
from hyper2kvmd.yaml_source import shown

SNAPSHOT = re.compile(r"snapshot(0|[1-9][0-9]{0,4})\.(?:uid|displayname)")
DISK = re.compile(r"disk(0|[1-9][0-9]{0,3})\.filename")
MAX_SHOWN = 100
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class FrozenDisk:
    device: str
    """`scsi0:1`; empty if the .vmsd does not say."""
    file: str
    """As the .vmsd spells it."""


@dataclass(frozen=True)
class Snapshot:
    uid: str
    """As `vim-cmd vmsvc/snapshot.get` shows it ("Snapshot Id"); empty if the .vmsd does not say."""
    name: str
    disks: tuple[FrozenDisk, ...]

    def __str__(self) -> str:
        return f"{shown(self.name)!r} (uid {shown(self.uid) or 'unknown'})"


def read_snapshots(settings: Settings) -> tuple[Snapshot, ...]:
    """In the order of the .vmsd's numbers, which are not the uids. The count in the .vmsd is not needed."""
    numbers = sorted({int(match[1]) for match in map(SNAPSHOT.fullmatch, settings.values) if match})
    groups: dict[str, dict[str, str]] = {}
    for key, value in settings.below("snapshot"):
        group, _, rest = key.partition(".")
        groups.setdefault(group, {})[rest] = value
    return tuple(_snapshot(groups.get(f"snapshot{number}", NOTHING)) for number in numbers)


def choose(snapshots: tuple[Snapshot, ...], wanted: str, vmsd: Path) -> Snapshot:
    """The only snapshot of this name, else the only one with this uid. Raises MigrationFailed (`snapshot-unknown`)."""
    named = [one for one in snapshots if one.name == wanted]
    if len(named) == 1:
        return named[0]
    by_uid = [one for one in snapshots if one.uid == wanted]
    if not named and len(by_uid) == 1:
        return by_uid[0]
    found = named or by_uid
    listed = ", ".join(map(str, (found or snapshots)[:MAX_SHOWN])) or "none"
    count = f"{len(found)} snapshots have" if found else "no snapshot has"
    raise MigrationFailed(
        "snapshot-unknown",
        f"{vmsd}: {count} the name or uid {shown(wanted)!r}. The snapshots are {listed}",
        hint="Set snapshot to one of the names or uids, or remove the key to migrate the current state",
    )


def _snapshot(values: Mapping[str, str]) -> Snapshot:
    disks = sorted(int(match[1]) for match in map(DISK.fullmatch, values) if match)
    return Snapshot(
        values.get("uid", "").strip(),
        values.get("displayname", ""),
        tuple(FrozenDisk(_device(values.get(f"disk{n}.node", "")), values[f"disk{n}.filename"]) for n in disks),
    )


def _device(node: str) -> str:
    device = node.strip().lower()
    return device if DEVICE.fullmatch(device) else ""
