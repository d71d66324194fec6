"""Refusals of archives, with their messages."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.errors import MigrationFailed, Unsafe

MAKE_AGAIN = "Export the machine again, or unpack the archive yourself and set ova to the directory"


def unsafe(path: Path, fact: str) -> Unsafe:
    return Unsafe("archive-unsafe", f"{path}: {fact}", hint=MAKE_AGAIN)


def too_large(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed("archive-too-large", f"{path}: {fact}", hint=MAKE_AGAIN)
