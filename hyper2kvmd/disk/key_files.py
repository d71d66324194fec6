"""Files that open LUKS containers: read when a stage needs them, stored nowhere."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.mandate import ANYONE, Mandate

LIMIT = 8 << 20
"""Bytes; cryptsetup has the same limit for a key file."""
TOTAL_LIMIT = 16 << 20
"""Bytes of all key files of a job, which are in memory together."""

Inode = tuple[int, int]
"""Device and inode."""


def read_keys(paths: tuple[Path, ...], mandate: Mandate = ANYONE) -> tuple[bytes, ...]:
    """The content of each file, once if it has several paths.

    Raises as `open_file` does, and MigrationFailed (`key-unusable`).
    """
    found: dict[Inode, bytes] = {}
    for path in paths:
        file = open_file(path, mandate)
        try:
            inode = file.identity.device, file.identity.inode
            if inode not in found:
                _require_usable(file, found.values())
                found[inode] = file.read(0, file.size)
        finally:
            os.close(file.fd)
    return tuple(found.values())


def _require_usable(file: SourceFile, others: Collection[bytes]) -> None:
    if not 0 < file.size <= LIMIT:
        raise MigrationFailed(
            "key-unusable",
            f"{file.path} has {file.size} bytes, which is not a valid size for a LUKS key",
            hint=f"Set luks_keyfile to a file of 1 to {LIMIT} bytes that contains only the passphrase or key",
        )
    if file.size + sum(map(len, others)) > TOTAL_LIMIT:
        raise MigrationFailed(
            "key-unusable",
            f"{file.path} and the key files before it have more than {TOTAL_LIMIT >> 20} MiB together",
            hint="Remove the files from luks_keyfile that open no disk of this machine",
        )
