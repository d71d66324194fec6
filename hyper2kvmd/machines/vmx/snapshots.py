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
    number: int
    """In the .vmsd: `snapshot3.displayName` belongs to number 3."""
    name: str
    disks: tuple[FrozenDisk, ...]

    def __str__(self) -> str:
        return f"{shown(self.name)!r} (number {self.number})"


def read_snapshots(settings: Settings) -> tuple[Snapshot, ...]:
    """By number. The count in the .vmsd is not needed."""
    numbers = sorted({int(match[1]) for match in map(SNAPSHOT.fullmatch, settings.values) if match})
    groups: dict[str, dict[str, str]] = {}
    for key, value in settings.below("snapshot"):
        group, _, rest = key.partition(".")
        groups.setdefault(group, {})[rest] = value
    return tuple(_snapshot(number, groups.get(f"snapshot{number}", NOTHING)) for number in numbers)


def choose(snapshots: tuple[Snapshot, ...], wanted: str, vmsd: Path) -> Snapshot:
    """The only snapshot of this name, else the one with this number. Raises MigrationFailed (`snapshot-unknown`)."""
    named = [one for one in snapshots if one.name == wanted]
    if len(named) == 1:
        return named[0]
    numbered = [one for one in snapshots if str(one.number) == wanted]
    if not named and numbered:
        return numbered[0]
    listed = ", ".join(map(str, (named or snapshots)[:MAX_SHOWN])) or "none"
    count = f"{len(named)} snapshots are" if named else "no snapshot is"
    raise MigrationFailed(
        "snapshot-unknown",
        f"{vmsd}: {count} called {shown(wanted)!r}. The snapshots are {listed}",
        hint="Set snapshot to one of the names or numbers, or remove the key to migrate the current state",
    )


def _snapshot(number: int, values: Mapping[str, str]) -> Snapshot:
    disks = sorted(int(match[1]) for match in map(DISK.fullmatch, values) if match)
    return Snapshot(
        number,
        values.get("displayname", ""),
        tuple(FrozenDisk(_device(values.get(f"disk{n}.node", "")), values[f"disk{n}.filename"]) for n in disks),
    )


def _device(node: str) -> str:
    device = node.strip().lower()
    return device if DEVICE.fullmatch(device) else ""
