"""The links of a snapshot chain: what a VMDK says of itself and of its parent, without opening its extents."""

from __future__ import annotations

from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.vmdk import sparse
from hyper2kvmd.disk.sources.vmdk.descriptor import LIMIT, SECTOR, Descriptor, is_descriptor, parse_descriptor
from hyper2kvmd.errors import MigrationFailed

ONLY_LINKS = 1 << 16
"""Bytes. The IDs and the parent come before the extents."""


def read_descriptor(file: SourceFile, limit: int = LIMIT) -> Descriptor | None:
    """The descriptor in an open file; None for a file that has none, or a damaged one.

    Lines that end after `limit` bytes are not read: they may be extents.
    """
    try:
        text = _text(file)
        return parse_descriptor(_lines(text, limit), file.path) if text is not None else None
    except MigrationFailed:
        return None


def _text(file: SourceFile) -> bytes | None:
    head = file.read(0, SECTOR)
    if head.startswith(sparse.MAGIC):
        return sparse.embedded_descriptor(file, sparse.read_header(file))
    return file.read(0, LIMIT) if is_descriptor(head) else None


def _lines(text: bytes, limit: int) -> bytes:
    if len(text) <= limit:
        return text
    return text[: max(text.rfind(b"\n", 0, limit), text.rfind(b"\r", 0, limit), 0)]


def same_cid(one: str, other: str) -> bool:
    """CIDs are hexadecimal; some writers leave out leading zeros."""
    return bool(one) and one.rjust(8, "0") == other.rjust(8, "0")
