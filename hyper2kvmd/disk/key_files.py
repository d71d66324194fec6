"""Files that open LUKS containers: read when a stage needs them, kept nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.mandate import ANYONE, Mandate

LIMIT = 8 << 20
"""Bytes; cryptsetup reads no more of a key file either."""


def read_keys(paths: tuple[Path, ...], mandate: Mandate = ANYONE) -> tuple[bytes, ...]:
    """The content of each file. Raises as `open_file` does, and MigrationFailed (`key-unusable`)."""
    return tuple(_read(path, mandate) for path in paths)


def _read(path: Path, mandate: Mandate) -> bytes:
    file = open_file(path, mandate)
    try:
        if not 0 < file.size <= LIMIT:
            raise MigrationFailed(
                "key-unusable",
                f"{path} has {file.size} bytes, which is not a valid size for a LUKS key",
                hint=f"set luks_keyfile to a file of 1 to {LIMIT} bytes that contains only the passphrase or key",
                kind=Kind.OPERATOR,
            )
        return file.read(0, file.size)
    finally:
        os.close(file.fd)
