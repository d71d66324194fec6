"""The content comparison: right about images that qemu-img wrote, and able to fail at any byte."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyper2kvmd.disk.blocks import Run
from hyper2kvmd.disk.engine.compare import first_difference
from hyper2kvmd.disk.images.qcow2.reader import open_image
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.files import data_ranges
from tests.support.disks import sh

MIB = 1 << 20
SIZE = 9 * MIB + 3 * 512
"""Not a whole number of clusters."""


class RawSource:
    """A raw file as a source: its holes belong to no run."""

    def __init__(self, path: Path, packed: int = 0) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._packed = packed
        self.virtual_size = os.fstat(self._file).st_size

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        for begin, end in data_ranges(self._file, start, stop):
            step = self._packed or end - begin
            for offset in range(begin, end, step):
                yield Run(offset, min(step, end - offset), self._file, offset, packed=bool(self._packed))

    def load(self, run: Run) -> bytes:
        return os.pread(run.file, run.length, run.offset)

    def __del__(self) -> None:
        os.close(self._file)


def make_disk(path: Path, size: int = SIZE) -> Path:
    """Data (never a zero) at both ends and in the middle, holes between, and a stretch of stored zeros."""
    pick = random.Random(1)  # noqa: S311
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in ((0, 70_000), (3 * MIB - 512, 2 * MIB), (size - 1000, 1000)):
            file.seek(offset)
            file.write(pick.randbytes(length).replace(b"\0", b"\1"))
        file.seek(6 * MIB)
        file.write(bytes(MIB))
    return path


def make_image(raw: Path, fmt: str, *options: str) -> Path:
    image = raw.with_suffix(f".{fmt}")
    sh("qemu-img", "convert", "-f", "raw", "-O", fmt, *options, raw, image)
    return image


def difference(raw: Path, image: Path, fmt: str = "qcow2", *, threads: int = 2, packed: int = 0) -> int | None:
    with open_image(image, fmt) as opened:
        return first_difference(RawSource(raw, packed), opened, threads=threads)


@pytest.mark.parametrize("size", [512, 65536, 65536 + 512, SIZE])
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-S", "0"],
        ["-c"],
        ["-c", "-o", "compression_type=zstd"],
        ["-o", "cluster_size=512"],
        ["-o", "cluster_size=2M"],
        ["-o", "compat=0.10"],
        ["-o", "preallocation=metadata"],
        ["-o", "preallocation=falloc"],
    ],
    ids=" ".join,
)
def test_what_qemu_img_wrote_reads_the_same(size: int, options: list[str], tmp_path: Path) -> None:
    raw = tmp_path / "disk.source"
    raw.write_bytes(os.urandom(min(size, 300_000)))
    os.truncate(raw, size)
    if size == SIZE:
        make_disk(raw)
    image = make_image(raw, "qcow2", *options)
    assert difference(raw, image) is None
    assert difference(raw, image, packed=65536) is None


def test_zero_clusters_over_data_read_as_zeros(tmp_path: Path) -> None:
    raw = make_disk(tmp_path / "disk.source")
    image = make_image(raw, "qcow2")
    with raw.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(bytes(MIB))
    assert difference(raw, image) == 3 * MIB
    sh("qemu-io", "-f", "qcow2", "-c", f"write -z {3 * MIB} {MIB}", image)
    assert difference(raw, image) is None


def test_cost_follows_what_is_stored_not_the_size(tmp_path: Path) -> None:
    """8 TiB of nothing: reading it would take an hour."""
    raw = tmp_path / "disk.source"
    raw.touch()
    os.truncate(raw, 8 << 40)
    with raw.open("r+b") as file:
        file.seek(5 << 40)
        file.write(b"data")
    image = make_image(raw, "qcow2")
    assert difference(raw, image) is None
    sh("qemu-io", "-f", "qcow2", "-c", f"write -P 1 {(7 << 40) + 4096} 512", image)
    assert difference(raw, image) == (7 << 40) + 4096


@pytest.mark.parametrize("fmt", ["qcow2", "raw"])
def test_a_disk_that_is_longer_differs_where_the_other_ends(fmt: str, tmp_path: Path) -> None:
    raw = make_disk(tmp_path / "disk.source")
    image = make_image(raw, fmt)
    os.truncate(raw, SIZE + 512)
    assert difference(raw, image, fmt) == SIZE
    os.truncate(raw, SIZE - 512)
    assert difference(raw, image, fmt) == SIZE - 512


def test_progress_ends_at_the_end_of_the_disk_and_never_goes_back(tmp_path: Path) -> None:
    raw = make_disk(tmp_path / "disk.source")
    heard: list[int] = []
    with open_image(make_image(raw, "qcow2"), "qcow2") as image:
        assert first_difference(RawSource(raw), image, threads=2, on_progress=heard.append) is None
    assert heard == sorted(heard)
    assert heard[-1] == SIZE


@given(
    offset=st.integers(0, SIZE - 1),
    bit=st.integers(0, 7),
    fmt=st.sampled_from(["qcow2", "raw"]),
    packed=st.sampled_from([0, 4096, 65536]),
    in_source=st.booleans(),
)
@settings(max_examples=60)
def test_one_flipped_bit_anywhere_is_found_where_it_is(
    offset: int, bit: int, fmt: str, packed: int, in_source: bool
) -> None:
    """In data, in stored zeros and where neither side has anything; on either side."""
    with tempfile.TemporaryDirectory() as folder:
        raw = make_disk(Path(folder) / "disk.source")
        image = make_image(raw, fmt)
        assert difference(raw, image, fmt, packed=packed) is None
        flipped = raw.read_bytes()[offset] ^ 1 << bit
        if in_source:
            with raw.open("r+b") as file:
                file.seek(offset)
                file.write(bytes([flipped]))
        else:
            sh("qemu-io", "-f", fmt, "-c", f"write -P {flipped} {offset} 1", image)
        assert difference(raw, image, fmt, packed=packed) == offset


@given(
    flips=st.lists(st.tuples(st.integers(0, 4 * 65536 - 1), st.integers(0, 255)), min_size=1, max_size=4),
    options=st.sampled_from([[], ["-c"], ["-c", "-o", "compression_type=zstd"]]),
)
@settings(max_examples=150)
def test_a_damaged_image_is_an_error_or_a_difference_never_a_crash(
    flips: list[tuple[int, int]], options: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = make_disk(Path(folder) / "disk.source")
        image = make_image(raw, "qcow2", *options)
        with image.open("r+b") as file:
            for offset, value in flips:
                file.seek(offset)
                file.write(bytes([value]))
        try:
            found = difference(raw, image)
        except MigrationFailed as failure:
            assert failure.code == "image-damaged"  # noqa: PT017 - either outcome will do
        else:
            assert found is None or 0 <= found <= SIZE


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"QFX\xfb"),
        (4, struct.pack(">I", 4)),
        (8, struct.pack(">Q", 512)),
        (20, struct.pack(">I", 40)),
        (32, struct.pack(">I", 1)),
        (36, struct.pack(">I", 0)),
        (40, struct.pack(">Q", 1 << 60)),
        (40, struct.pack(">Q", (1 << 64) - 65536)),
        (60, struct.pack(">I", 1)),
        (72, struct.pack(">Q", 1 << 2)),
    ],
)
def test_a_header_that_asks_for_more_is_refused(offset: int, value: bytes, tmp_path: Path) -> None:
    image = make_image(make_disk(tmp_path / "disk.source"), "qcow2")
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    with pytest.raises(MigrationFailed) as caught, open_image(image, "qcow2"):
        pass
    assert caught.value.code == "image-damaged"
