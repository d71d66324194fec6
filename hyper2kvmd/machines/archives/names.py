"""The names of the files in an archive: vetted, since they become names of files on this host."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from hyper2kvmd.machines.archives import faults

MAX_FILES = 10_000
"""In one archive. A disk of 64 TiB in parts of 7 GiB, as VMware cuts them, has 9,400."""
LONGEST_PATH, LONGEST_NAME = 1024, 255
"""Bytes."""
SHOWN = 80
"""Characters of a name in a message."""
OF_A_MAC = "__MACOSX"


def vetted(raw: bytes, archive: Path) -> str:
    """The name of a file, without `./` before it. Raises Unsafe (`archive-unsafe`) for one that leads elsewhere."""
    name = raw.decode(errors="replace")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "." in parts or "" in parts:
        raise faults.unsafe(archive, f"the name {name[:SHOWN]!r} in it leads to another directory, or is no file name")
    if not name.isprintable():
        raise faults.unsafe(archive, f"the name {name[:SHOWN]!r} in it has control characters")
    if len(raw) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise faults.unsafe(archive, f"the name {name[:SHOWN]!r}... in it is too long")
    return name


def is_left_out(name: str) -> bool:
    """Whether it is an attribute of another file, which macOS adds to archives."""
    parts = name.split("/")
    return parts[0] == OF_A_MAC or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


def require_new(name: str, known: Container[str], count: int, archive: Path) -> None:
    """Raise Unsafe (`archive-unsafe`) for a second file of the name, and `archive-too-large` for too many files."""
    if name in known:
        raise faults.unsafe(archive, f"it has two files with the name {name[:SHOWN]!r}")
    if count >= MAX_FILES:
        raise faults.too_large(archive, f"it has more than {MAX_FILES} files")
