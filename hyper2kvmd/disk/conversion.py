"""One VMDK into one image file: reader, writer and copy engine put together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk import copy, qcow2, vmdk
from hyper2kvmd.disk.raw_target import RawTarget
from hyper2kvmd.disk.target import Target
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model import FileIdentity

Format = Literal["qcow2", "raw"]


def convert_vmdk(
    path: Path,
    files: tuple[FileIdentity, ...],
    target: Path,
    target_format: Format,
    *,
    compress: bool = False,
    reserve: bool = False,
    limits: copy.Limits,
    on_progress: Callable[[copy.Amounts], None] = lambda _amounts: None,
) -> copy.Amounts:
    """Write `target`, complete and flushed, from the disk at `path` that consists of `files`.

    What a killed conversion of the very same files left at `target` is gone on from. Raises MigrationFailed
    (`source-changed`), and as `vmdk.open_source` and `copy.copy` do.
    """
    with vmdk.open_source(path) as source:
        if source.files != files:
            raise MigrationFailed(
                "source-changed",
                f"{path} is no longer what it was when the migration was planned",
                hint="stop whatever writes to it (is the VM still running?), then retry",
                kind=Kind.OPERATOR,
            )
        identity = "\n".join(file.model_dump_json() for file in files)
        with contextlib.closing(_target(target, target_format, source.virtual_size, compress=compress)) as image:
            return copy.copy(source, image, identity=identity, reserve=reserve, limits=limits, on_progress=on_progress)


def image_bytes(virtual_size: int, data_bytes: int | None, target_format: Format) -> int:
    """What an uncompressed image of a disk with so much data occupies; of all of the disk when that is None."""
    if target_format == "raw":
        return virtual_size if data_bytes is None else data_bytes
    return qcow2.full_size(virtual_size, data_bytes)


def _target(path: Path, target_format: Format, size: int, *, compress: bool) -> Target:
    return RawTarget(path, size) if target_format == "raw" else qcow2.Writer(path, size, compress=compress)
