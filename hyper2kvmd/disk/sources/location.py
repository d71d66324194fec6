"""Opens a disk at its location: the only place that decides where the bytes of a source come from.

Its format and reader are chosen in opening.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.sources.opening import open_source
from hyper2kvmd.disk.sources.source import DiskSource
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.model.disks import DiskRef, LocalFile


@contextlib.contextmanager
def open_disk(at: DiskRef, folder: Path, mandate: Mandate = ANYONE) -> Iterator[DiskSource]:
    """The disk, vetted and ready to be read; QEMU's socket may be made in `folder`.

    Raises as `open_file` and `open_source` do.
    """
    if not isinstance(at, LocalFile):
        raise NotImplementedError(str(at))
    mandate = mandate_for(at, mandate)
    file = open_file(at.path, mandate)
    try:
        with open_source(file, folder, mandate) as disk:
            yield disk
    finally:
        os.close(file.fd)


def mandate_for(at: LocalFile, mandate: Mandate) -> Mandate:
    """The rights by which it is opened: a file that another one names is judged for the owner of that one as well."""
    if at.named_by is not None:
        return mandate.named_by_owner(at.named_by.path, at.named_by.uid)
    return mandate
