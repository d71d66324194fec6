"""The errors of driver sources."""

from __future__ import annotations

from hyper2kvmd.errors import Kind, MigrationFailed

LONGEST = 80
"""Characters of a name from the source that a message shows."""
GET_ANOTHER = (
    "Name a virtio-win ISO, or a folder with its files, in virtio_win; compare its checksum with the original's"
)


def unreadable(where: object, fact: str, hint: str = GET_ANOTHER) -> MigrationFailed:
    return MigrationFailed("virtio-win-unreadable", f"{where}: {fact}", hint=hint, kind=Kind.OPERATOR)


def shown(name: str) -> str:
    """A name from the source, for a message of one line."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name[:LONGEST])
    return plain if len(name) <= LONGEST else f"{plain}..."
