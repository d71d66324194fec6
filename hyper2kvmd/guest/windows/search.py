"""Finds the Windows installations on the NTFS volumes of all disks, read-only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.family import GuestDisks, describe
from hyper2kvmd.guest.windows.volumes import check_windows, holds, readable
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.volumes.ntfs.state import holds_loader, holds_registry

UUID_PREFIX = "UUID="


@dataclass(frozen=True)
class WindowsVolumes:
    installed: tuple[Volume, ...]
    """Volumes with a Windows."""
    loaders: tuple[Volume, ...]
    """Volumes with a boot manager for BIOS."""


def look(disks: GuestDisks) -> WindowsVolumes:
    """Raises as `check_windows` does."""
    volumes = tuple(readable(disks.layout))
    with ExitStack() as stack:
        opened = {volume: stack.enter_context(disks.access.blocks(volume, read_only=True)) for volume in volumes}
        check_windows(disks.layout, opened.__getitem__)
        return WindowsVolumes(
            installed=tuple(volume for volume, blocks in opened.items() if holds(holds_registry, blocks)),
            loaders=tuple(volume for volume, blocks in opened.items() if holds(holds_loader, blocks)),
        )


def choose(found: WindowsVolumes, layout: Layout, asked: str | None) -> Volume | None:
    """The volume of the Windows to repair; None if these disks have nothing of Windows.

    Raises MigrationFailed: `windows-ambiguous`, `root-unknown`, `windows-root-missing`.
    """
    installed = found.installed
    if asked is not None and installed:
        installed = tuple(volume for volume in installed if _is_named(volume, asked))
        if not installed:
            raise _unknown(found.installed, asked)
    if len(installed) > 1:
        raise MigrationFailed(
            "windows-ambiguous",
            f"the disks hold several Windows installations: {', '.join(map(describe, installed))}",
            hint=f"Choose one in the migration file: {_choices(installed)}",
            kind=Kind.PERMANENT,
        )
    if installed:
        return installed[0]
    if found.loaders and not any(volume.content == "crypto_LUKS" for volume in layout.volumes):
        raise MigrationFailed(
            "windows-root-missing",
            f"{describe(found.loaders[0])} has the boot manager of Windows, but no volume of these disks has Windows",
            hint="Add all disks of the machine to vmdk:, or set guest: none if they only hold data",
            kind=Kind.PERMANENT,
        )
    return None


def _is_named(volume: Volume, asked: str) -> bool:
    uuid = asked.removeprefix(UUID_PREFIX)
    return asked == volume.name or (asked != uuid and bool(volume.uuid) and uuid.upper() == str(volume.uuid).upper())


def _choices(volumes: Sequence[Volume]) -> str:
    """By name where several have the same UUID, as copies have."""
    uuids = [volume.uuid for volume in volumes]
    names = (
        f"{UUID_PREFIX}{volume.uuid}" if volume.uuid and uuids.count(volume.uuid) == 1 else _quoted(volume.name)
        for volume in volumes
    )
    return " or ".join(f"root: {name}" for name in names)


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


def _unknown(volumes: Sequence[Volume], asked: str) -> MigrationFailed:
    return MigrationFailed(
        "root-unknown",
        f"root: {asked} has no Windows on these disks",
        hint=f"Write {_choices(volumes)}",
        kind=Kind.PERMANENT,
    )
