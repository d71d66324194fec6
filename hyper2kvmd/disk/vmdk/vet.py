"""Whether a VMDK may be handed to a converter, and which files it is made of.

A VMDK is untrusted input that names other files. Only formats whose extents and parents are plain files beside the
descriptor are let through; the files found here are the only ones a converter may read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk.vmdk.source import open_source
from hyper2kvmd.model import FileIdentity


@dataclass(frozen=True)
class VettedVmdk:
    """A VMDK that may be handed to a converter. `virtual_size` in bytes; `files` starts with the one named."""

    subformat: str
    virtual_size: int
    files: tuple[FileIdentity, ...]


def vet(path: Path) -> VettedVmdk:
    """Read descriptors and tables of `path` and its parents, and identify every file that belongs to it.

    Raises as `open_source` does.
    """
    with open_source(path) as source:
        return VettedVmdk(source.subformat, source.virtual_size, source.files)
