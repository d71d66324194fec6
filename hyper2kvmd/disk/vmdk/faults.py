"""How a VMDK can be at fault, in the words that a person gets to see.

`source-truncated` is a file that ends too early, `source-corrupt` one whose bytes contradict themselves; both say at
which byte of which file.
"""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed


def truncated(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "source-truncated",
        f"{path} is incomplete: {fact}",
        hint="compare its size with the original's, then copy or export it again",
        kind=Kind.OPERATOR,
    )


def corrupt(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "source-corrupt",
        f"{path} is corrupt: {fact}",
        hint="compare its checksum with the export's manifest, then copy or export it again",
    )


def not_vmdk(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed("source-not-vmdk", f"{path} is damaged or not a VMDK: {fact}", hint="export the disk again")


def unsupported(path: Path, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("source-unsupported", f"{path} {fact}", hint=hint)


def unreadable(path: Path, error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "source-unreadable",
        f"{path} cannot be read: {error.strerror}",
        hint="give the user that runs the migration read access to the disk and its directory",
        kind=Kind.OPERATOR,
    )
