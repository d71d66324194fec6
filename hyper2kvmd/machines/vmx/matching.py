"""Which .vmx belongs to a disk: they are matched by the file, since a .vmx rarely spells its path as it is here."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from enum import IntEnum
from pathlib import Path

from hyper2kvmd.disk.file_names import family, last_part, same_name


class Match(IntEnum):
    """How well a .vmx fits a disk."""

    NONE = 0
    CHAIN = 1
    """It names another disk of the same snapshot chain, or has the chain's name."""
    FILE_NAME = 2
    """It names a file of this name: in a directory of ESX or Windows, or in other case."""
    SAME = 3
    """It names this file, or has its name."""


def machines_of(disk: Path, described: Mapping[Path, Collection[str]], beside: AbstractSet[str]) -> tuple[Path, ...]:
    """The .vmx files that fit best. `described` has the files that each one names, `beside` the names in its folder."""
    matches = {path: _match(disk, path, files, beside) for path, files in described.items()}
    best = max(matches.values(), default=Match.NONE)
    return tuple(path for path, match in matches.items() if match is best) if best else ()


def _match(disk: Path, vmx: Path, files: Collection[str], beside: AbstractSet[str]) -> Match:
    if vmx.stem == disk.stem or any(_is_path_of(disk, vmx, name) for name in files):
        return Match.SAME
    names = [last_part(name) for name in files]
    names = [name for name in names if name == disk.name or not (same_name(name, disk.name) and name in beside)]
    if any(same_name(name, disk.name) for name in names):
        return Match.FILE_NAME
    chain = family(disk.name)
    if same_name(vmx.stem, chain) or any(same_name(family(name), chain) for name in names):
        return Match.CHAIN
    return Match.NONE


def _is_path_of(disk: Path, vmx: Path, name: str) -> bool:
    """Whether the path, which may be relative to the .vmx, is the disk's. It is not opened."""
    return os.path.normpath(vmx.parent / name) == os.path.normpath(disk)
