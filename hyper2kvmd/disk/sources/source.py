"""The seam for source formats: what every reader of a source disk is to the rest of the program."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

from hyper2kvmd.disk.blocks import Counted
from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.model.disks import FileIdentity, SourceFormat

OnProgress = Callable[[copy.Amounts], None]


class DiskSource(Counted, Protocol):
    """A vetted, open source disk. Sizes are bytes of the guest's disk."""

    @property
    def format(self) -> SourceFormat: ...

    @property
    def subformat(self) -> str: ...

    @property
    def files(self) -> tuple[FileIdentity, ...]: ...

    def copy_into(self, image: NewImage, limits: copy.Limits, on_progress: OnProgress) -> None:
        """Write the image, complete and flushed. Raises as `copy.copy` or `qemu_img.convert` do."""
        ...


def copy_by_engine(source: DiskSource, image: NewImage, limits: copy.Limits, on_progress: OnProgress) -> None:
    """Copy with our engine. What a killed attempt wrote of the same files is continued."""
    identity = "\n".join(file.model_dump_json() for file in source.files)
    with contextlib.closing(image.target(source.virtual_size)) as target:
        copy.copy(source, target, identity=identity, reserve=image.reserve, limits=limits, on_progress=on_progress)
