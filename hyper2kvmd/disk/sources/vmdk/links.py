"""The links of a snapshot chain: what a VMDK says of itself and of its parent, without opening its extents."""

from __future__ import annotations

from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.vmdk import sparse
from hyper2kvmd.disk.sources.vmdk.descriptor import LIMIT, SECTOR, Descriptor, is_descriptor, parse_descriptor
from hyper2kvmd.errors import MigrationFailed


def read_descriptor(file: SourceFile) -> Descriptor | None:
    """The descriptor in an open file; None for a file that has none, or a damaged one."""
    try:
        head = file.read(0, SECTOR)
        if head.startswith(sparse.MAGIC):
            return parse_descriptor(sparse.embedded_descriptor(file, sparse.read_header(file)), file.path)
        return parse_descriptor(file.read(0, LIMIT), file.path) if is_descriptor(head) else None
    except MigrationFailed:
        return None


def same_cid(one: str, other: str) -> bool:
    """CIDs are hexadecimal; some writers leave out leading zeros."""
    return bool(one) and one.rjust(8, "0") == other.rjust(8, "0")
