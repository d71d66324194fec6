"""The files that a VMDK names: only those in its directory."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.errors import Unsafe


def sibling(path: Path, name: str) -> Path:
    """The file `name` in the directory of `path`; raises Unsafe (`source-unsafe`) for any other name."""
    if not is_plain_name(name) or name == path.name:
        raise Unsafe(
            "source-unsafe",
            f"{path} names the file {name!r}, which is not in the same directory",
            hint="Put all files of the disk in the descriptor's directory and name them without a path",
        )
    return path.with_name(name)


def is_plain_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and name.isprintable() and "/" not in name
