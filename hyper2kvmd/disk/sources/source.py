"""The interface that every reader of a source disk implements."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hyper2kvmd.disk.blocks import Counted
from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import FileIdentity, SourceFormat

OnProgress = Callable[[copy.Amounts], None]


@dataclass(frozen=True)
class QemuNode:
    """How QEMU reads a file as the same disk: the name of its driver, and the driver's options."""

    driver: str
    options: Mapping[str, object] = field(default_factory=dict)


class DiskSource(Counted, Protocol):
    """A vetted, open source disk. Sizes are bytes of the guest's disk."""

    @property
    def format(self) -> SourceFormat: ...

    @property
    def subformat(self) -> str: ...

    @property
    def serial(self) -> str | None:
        """The identifier that the source's hypervisor shows to the guest, as 32 hex digits; None if unknown."""
        ...

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """All files of the disk, open; the named file first."""
        ...

    @property
    def concerns(self) -> tuple[Concern, ...]:
        """About how the disk is read."""
        ...

    @property
    def identity(self) -> tuple[FileIdentity, ...]:
        """Of its files: it must not change while the disk is read, nor until another attempt opens it."""
        ...

    @property
    def qemu_node(self) -> QemuNode | None:
        """For the second opinion; None if QEMU would read another disk."""
        ...

    def require_unchanged(self) -> None:
        """Raise MigrationFailed (`source-changed`) if the disk was written to since it was opened."""
        ...

    def copy_into(self, image: NewImage, limits: copy.CopyLimits, on_progress: OnProgress) -> None:
        """Write the image, complete and flushed. Raises as `copy.copy` or `qemu_img.convert` do."""
        ...


class FileBacked:
    """The common part of every `DiskSource` that consists of open files."""

    format: SourceFormat
    files: tuple[SourceFile, ...]
    concerns: tuple[Concern, ...] = ()
    serial: str | None = None

    @property
    def qemu_node(self) -> QemuNode | None:
        return QemuNode(self.format)

    @property
    def identity(self) -> tuple[FileIdentity, ...]:
        return tuple(file.identity for file in self.files)

    def require_unchanged(self) -> None:
        for file in self.files:
            file.require_unchanged()


def copy_by_engine(
    source: DiskSource,
    image: NewImage,
    limits: copy.CopyLimits,
    on_progress: OnProgress,
    *,
    counted: Counted | None = None,
) -> None:
    """Copy with our engine. The copy of a killed attempt from the same files is continued.

    `counted` is the same source with the exact number of bytes in its runs, if its own is an estimate.
    """
    identity = "\n".join(file.model_dump_json() for file in source.identity)
    reserve = image.reserve
    with contextlib.closing(image.create(source.virtual_size)) as made:
        copy.copy(counted or source, made, identity=identity, reserve=reserve, limits=limits, on_progress=on_progress)
