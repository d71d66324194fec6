"""Recognises a file that another key of the migration names: an OVA in `ovf`, a disk in `vmx`."""

from __future__ import annotations

from dataclasses import dataclass

from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.opening import format_at_start
from hyper2kvmd.disk.sources.other_files import DOMAIN, OVF, SECTOR, by_its_start
from hyper2kvmd.machines.archives.streams import Compression, Unpacked, compression_of
from hyper2kvmd.machines.archives.tar import BLOCK, is_tar
from hyper2kvmd.machines.archives.zip import is_zip
from hyper2kvmd.machines.vmx.settings import parse_settings
from hyper2kvmd.model.asked import SourceKey

HEAD = 4096
"""Bytes in which a .vmx shows a setting."""


@dataclass(frozen=True)
class Recognised:
    """What a file is, and the key that names such files."""

    what: str
    key: SourceKey

    def remedy(self, given: SourceKey) -> str:
        return f"Use {self.key}: instead of {given}: for this file"


def recognise(file: SourceFile, given: SourceKey) -> Recognised | None:
    """What a file is by its content; None for one that may be what the key `given` names, or is nothing known.

    Raises as `open_file` does if the file is compressed and its start is damaged.
    """
    found = _by_content(file)
    return None if found is None or found.key == given else found


def tar_inside(file: SourceFile) -> Compression | None:
    """The compression of a compressed tar archive. Raises as `Unpacked.read` does."""
    compression = compression_of(file.read(0, BLOCK))
    return compression if compression is not None and is_tar(Unpacked(file, compression).read(BLOCK)) else None


def _by_content(file: SourceFile) -> Recognised | None:
    head = file.read(0, SECTOR)
    if is_tar(head) or is_zip(head) or tar_inside(file) is not None:
        return Recognised("an OVA or another archive", "ova")
    found = format_at_start(file)
    if found is not None:
        return Recognised(f"a disk ({found.upper()})", "vmdk")
    described = by_its_start(head)
    if described is OVF:
        return Recognised("an OVF descriptor", "ovf")
    if described is DOMAIN:
        return Recognised("the XML of a libvirt domain", "libvirt_xml")
    if not head.lstrip().startswith(b"<") and parse_settings(file.read(0, HEAD), limit=1).values:
        return Recognised("a .vmx file", "vmx")
    return None
