"""Errors of OVF descriptors, with their messages. Each names the descriptor, what was seen in it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from hyper2kvmd.errors import MigrationFailed

SHOWN = 40
"""Names in one message."""
LONGEST = 80
"""Characters of one name or value in a message."""


def shown(text: str) -> str:
    """A foreign text for a message, in quotes and not too long."""
    return repr(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


def listed(names: Iterable[str]) -> str:
    """Names for a message; `and 12 more` after the first ones."""
    every = [name if name.isprintable() and len(name) <= LONGEST else shown(name) for name in names]
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return f"{', '.join(every[:SHOWN])}{more}" or "none"


def unreadable(name: str, fact: str, hint: str = "Export the machine again, or copy the file again") -> MigrationFailed:
    """The text is no OVF at all."""
    return MigrationFailed("ovf-unreadable", f"{name} is not an OVF descriptor: {fact}", hint=hint)


def too_complex(name: str, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "ovf-too-complex",
        f"{name} has {fact}",
        hint="Check that it describes a machine, then export the machine again",
    )


def system_unclear(name: str, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("ovf-system-unclear", f"{name} {fact}", hint=hint)


def configuration_unclear(name: str, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("ovf-configuration-unclear", f"{name} {fact}", hint=hint)


def value_unclear(name: str, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("ovf-value-unclear", f"{name}: {fact}", hint=hint)


def disk_unclear(name: str, fact: str, hint: str = "") -> MigrationFailed:
    return MigrationFailed(
        "ovf-disk-unclear",
        f"{name}: {fact}",
        hint=hint or "Correct the descriptor, or name the disks themselves in order: `vmdk: [first, second]`",
    )


def too_many_disks(name: str, count: int, most: int) -> MigrationFailed:
    return MigrationFailed(
        "disks-too-many",
        f"{name} has {count} disks, more than the {most} of one machine",
        hint=f"Detach data disks until {most} are left, and migrate the others with vmdk",
    )


def disk_unsupported(name: str, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("ovf-disk-unsupported", f"{name}: {fact}", hint=hint)
