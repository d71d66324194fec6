"""The files that a VMDK names: only those in its directory."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.errors import Unsafe


def sibling(file: SourceFile, name: str) -> Path:
    """The file `name` in the directory of `file`.

    Raises Unsafe (`source-unsafe`) for any other name, and MigrationFailed (`source-unsupported`) in an archive.
    """
    path = file.path
    if not is_plain_name(name) or name == path.name:
        raise Unsafe(
            "source-unsafe",
            f"{path} names the file {name!r}, which is not in the same directory",
            hint="Put all files of the disk in the descriptor's directory and name them without a path",
        )
    if file.is_member:
        raise faults.unsupported(
            path,
            f"is a disk of several files: it names {name!r} in the same archive",
            "Unpack the archive into a directory (tar -xf), and name the directory instead",
        )
    return path.with_name(name)


def is_plain_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and name.isprintable() and "/" not in name
