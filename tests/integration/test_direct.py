"""Writes past the page cache: on a real disk, and on a file system that refuses them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.disk.direct import CAPACITY, DirectFile
from tests.support.copying import image_of, require_same
from tests.support.disks import sh
from tests.support.sources import MadeSource, Part, content

MIB = 1 << 20
DATA = content(5, 2 * CAPACITY + 3 * 4096)
HOLE = 65536


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Path]:
    """A file system without O_DIRECT."""
    place = tmp_path / "ramfs"
    place.mkdir()
    sh("mount", "-t", "ramfs", "ramfs", place)
    try:
        yield place
    finally:
        sh("umount", place)


def written(path: Path, offset: int, sizes: list[int]) -> bool:
    path.write_bytes(b"")
    buffers, at = [], 0
    for size in sizes:
        buffers.append(memoryview(DATA)[at : at + size])
        at += size
    with contextlib.closing(DirectFile(path)) as direct:
        return direct.write(offset, at, [*buffers])


@pytest.mark.parametrize("sizes", [[4096], [1, 4095], [CAPACITY - 512, 1024, 3584], [len(DATA)], [CAPACITY, CAPACITY]])
def test_buffers_of_any_length_are_written_as_one(sizes: list[int], tmp_path: Path) -> None:
    assert written(tmp_path / "file", HOLE, sizes)
    assert (tmp_path / "file").read_bytes() == bytes(HOLE) + DATA[: sum(sizes)]


@pytest.mark.parametrize(("offset", "size"), [(0, 512), (512, 4096), (4096, 4097)])
def test_what_is_not_aligned_is_left_to_the_page_cache(offset: int, size: int, tmp_path: Path) -> None:
    assert not written(tmp_path / "file", offset, [size])
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_system_without_it_is_written_through_the_page_cache(ramfs: Path, tmp_path: Path) -> None:
    assert not written(ramfs / "file", 0, [4096])
    with contextlib.closing(MadeSource(tmp_path / "made", len(DATA), [Part(0, DATA, False)])) as source:
        image_of(source, ramfs / "image")
    (tmp_path / "raw").write_bytes(DATA)
    require_same(tmp_path / "raw", ramfs / "image", "qcow2")


def test_a_copied_image_does_not_fill_the_page_cache(tmp_path: Path) -> None:
    data = os.urandom(32 * MIB)
    with contextlib.closing(MadeSource(tmp_path / "made", len(data), [Part(0, data, False)])) as source:
        image_of(source, tmp_path / "image")
    resident = int(sh("fincore", "--bytes", "--noheadings", "--output", "RES", tmp_path / "image"))
    assert resident < len(data) // 8
