"""Disks of every source format, made by qemu-img of known bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.errors import Failure
from hyper2kvmd.model.disks import LocalFile
from tests.support.disks import sh

MIB = 1 << 20
SIZE = 37 * MIB + 5 * 512
"""No whole number of any format's blocks."""
EXACT = ("-o", "force_size=on")
"""Else qemu-img rounds the size of a VHD up to a whole number of cylinders."""
QEMU_NAMES = {"vhd": "vpc"}


def make_raw(path: Path, size: int = SIZE, stretches: tuple[tuple[int, int], ...] = ((0, 3), (9, 12), (35, 2))) -> Path:
    """Random bytes in stretches (first MiB, MiB); the last one ends with the disk."""
    pick = random.Random(size)  # noqa: S311
    with path.open("wb") as file:
        file.truncate(size)
        for start, length in stretches:
            file.seek(start * MIB)
            file.write(pick.randbytes(min(length * MIB, size - start * MIB)))
        if stretches:
            file.seek(size - 512)
            file.write(pick.randbytes(512))
    return path


def make(folder: Path, fmt: str, options: tuple[str, ...] = (), *, raw: Path | None = None) -> Path:
    """The disk in `raw` as a file of that format."""
    if raw is None:
        raw = make_raw(folder / "made.source")
    target = folder / "export" / f"disk.{fmt}"
    target.parent.mkdir(exist_ok=True)
    if fmt == "raw":
        sh("cp", "--sparse=always", raw, target)  # qemu-img never leaves the first block of a raw disk empty
    else:
        sh("qemu-img", "convert", "-f", "raw", "-O", QEMU_NAMES.get(fmt, fmt), *options, raw, target)
    return target


def refused(path: Path) -> Failure:
    """Refused on entry: there is not even a folder that a tool could work in."""
    with pytest.raises(Failure) as caught, open_disk(LocalFile(path=path), Path("/nonexistent")):
        pass
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def poke(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
