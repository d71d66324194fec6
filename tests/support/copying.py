"""Disks to copy, and copies that must be the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import strategies as st

from hyper2kvmd.disk.engine.copy import Amounts, CopyLimits, copy
from hyper2kvmd.disk.images.qcow2 import WINDOW
from hyper2kvmd.disk.qemu import qemu_img
from tests.support.disks import sh
from tests.support.sources import Kind, MadeSource, Part, RawSource, content, make_target

MIB = 1 << 20


def image_of(
    source: RawSource | MadeSource,
    path: Path,
    kind: Kind = "qcow2",
    *,
    limits: CopyLimits | None = None,
    reserve: bool = False,
    on_progress: Callable[[Amounts], None] = lambda _: None,
) -> Amounts:
    with contextlib.closing(make_target(kind, path, source.virtual_size)) as target:
        return copy(source, target, identity="one", limits=limits, reserve=reserve, on_progress=on_progress)


def require_same(raw: Path, image: Path, kind: Kind) -> None:
    if kind == "raw":
        sh("cmp", raw, image)
        return
    sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image)
    assert qemu_img.check(image) is None


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[Part], int]:
    """(virtual size, parts, gap in the file): any sectors, in any pieces, across clusters and windows."""
    size = draw(st.sampled_from((1, 127, 128, 129, 4096, 40_000, (WINDOW >> 9) + 77))) * 512
    parts, at = [], 0
    for number in range(draw(st.integers(0, 12))):
        at += draw(st.sampled_from((0, 1, 7, 8, 127, 128, 1000, WINDOW // 512 - 200))) * 512
        length = min(draw(st.sampled_from((1, 8, 16, 100, 128, 129, 5000))) * 512, size - at)
        if length <= 0:
            break
        data = bytes(length) if draw(st.booleans()) and draw(st.booleans()) else content(number, length)
        parts.append(Part(at, data, draw(st.booleans())))
        at += length
    return size, parts, draw(st.sampled_from((0, 512, 4096)))


@contextlib.contextmanager
def mounted(folder: Path, make: str, mebibytes: int) -> Iterator[Path]:
    """A fresh file system of the kind, mounted."""
    image, point = folder / f"{make}.img", folder / f"{make}.mnt"
    image.touch()
    os.truncate(image, mebibytes * MIB)
    point.mkdir()
    sh(f"mkfs.{make}", "-q", image)
    sh("mount", "-o", "loop", image, point)
    try:
        yield point
    finally:
        sh("umount", point)
