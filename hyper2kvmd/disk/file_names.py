"""The names that VMware gives to the files of a disk, and that its text files give to them."""

from __future__ import annotations

import re
from pathlib import PurePath

SNAPSHOT_NUMBER = re.compile(r"(.+)-[0-9]{6}")
"""The stem of a snapshot's file: web01-000001."""

RAW_EXTENT = re.compile(r"(.+)-(?:flat|rdmp?)(\.vmdk)", re.IGNORECASE)
"""The name of the only extent of a flat VMDK, or of the file for a raw device mapping."""


def descriptor_of(name: str) -> str | None:
    """The name of the descriptor of a file with raw content, which a guest wrote; None for another name."""
    extent = RAW_EXTENT.fullmatch(name)
    return extent and f"{extent[1]}{extent[2]}"


def last_part(path: str) -> str:
    """The file name in a path, which may be one of Windows."""
    return re.split(r"[/\\]", path)[-1]


def same_name(one: str, other: str) -> bool:
    """Whether two names can mean one file: a Windows host ignores the case."""
    return one.casefold() == other.casefold()


def family(name: str) -> str:
    """The stem that a disk and its snapshots have in common: web01 of web01-000001.vmdk and web01-flat.vmdk."""
    stem = PurePath(descriptor_of(name) or name).stem
    numbered = SNAPSHOT_NUMBER.fullmatch(stem)
    return numbered[1] if numbered else stem
