"""The links between a disk and its snapshots: what an open file says of itself and of its parent, in any format."""

from __future__ import annotations

from dataclasses import dataclass

from hyper2kvmd.disk.file_names import last_part
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.block_map import vdi
from hyper2kvmd.disk.sources.foreign import qcow2
from hyper2kvmd.disk.sources.vmdk.descriptor import NO_PARENT
from hyper2kvmd.disk.sources.vmdk.links import ONLY_LINKS, read_descriptor
from hyper2kvmd.errors import MigrationFailed

COMMON_IDS = ("fffffffe", "00000000")
"""CIDs of VMDKs that were never written to: many disks have them."""


@dataclass(frozen=True)
class Link:
    """One file of a chain. An empty string is an unknown or missing value."""

    name: str
    id: str = ""
    parent_name: str = ""
    """Without a directory."""
    parent_id: str = ""
    has_unique_id: bool = False
    """A UUID. VMDKs have CIDs instead, and a copy has that of its original."""

    @property
    def has_parent(self) -> bool:
        return bool(self.parent_name or self.parent_id)


def read_link(file: SourceFile) -> Link:
    """What the open file says; a damaged or unknown file says nothing."""
    name = file.path.name
    try:
        described, uuids = read_descriptor(file, ONLY_LINKS), vdi.read_uuids(file)
        backing = qcow2.read_backing_name(file)
    except MigrationFailed:  # the storage failed
        return Link(name)
    if described is not None:
        parent = "" if described.parent_cid == NO_PARENT else _eight_digits(described.parent_cid)
        return Link(name, _eight_digits(described.cid), last_part(described.parent_hint or ""), parent)
    if uuids is not None:
        image, parent_uuid = uuids
        parent = "" if parent_uuid == vdi.NOBODY else parent_uuid.hex()
        return Link(name, image.hex(), parent_id=parent, has_unique_id=True)
    return Link(name, parent_name=last_part(backing))


def _eight_digits(cid: str) -> str:
    """Some writers leave out leading zeros."""
    return cid.rjust(8, "0") if cid else ""
