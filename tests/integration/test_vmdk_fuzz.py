"""A short run of what `make fuzz` does for long, and sound disks of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.second_opinion import second_opinion
from tests.fuzz.vmdk import fuzz
from tests.support.vmdk import full
from tests.support.vmdk_images import Grains, content, descriptor, expected, hosted

SECTOR = 512


def test_a_damaged_vmdk_gives_bytes_or_a_failure() -> None:
    ends, wrong = fuzz(seed=1, count=2000)
    assert not wrong, wrong[0]
    assert {"bytes", "source-not-vmdk", "source-corrupt", "source-truncated", "source-unsupported"} <= set(ends)
    assert ends["qemu: same"] > 20


@dataclass(frozen=True)
class Shape:
    """A hosted sparse disk. Sizes in sectors; `before` is a flat extent that it follows, None for a file by itself."""

    grain: int
    per_table: int
    capacity: int
    grains: Grains
    packed: bool
    before: int | None


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    grain = 1 << draw(st.integers(3, 11))
    count = draw(st.integers(1, 150))
    capacity = grain * (count - 1) + draw(st.integers(1, grain))
    packed = draw(st.booleans())
    size = grain * SECTOR
    kinds = st.sampled_from((None, bytes(size), b"text" * (size // 4), full(size)))
    grains: Grains = draw(st.dictionaries(st.integers(0, count - 1), kinds, max_size=12))
    if packed:  # the last grain is whole: QEMU asks for that, and cuts it
        last = capacity - grain * (count - 1)
        whole = (grains.get(count - 1) or b"")[: last * SECTOR].ljust(size, b"\0")
        grains = {**grains, count - 1: whole}
    per_table = draw(st.sampled_from((64, 128, 512)))
    return Shape(grain, per_table, capacity, grains, packed, None if packed else draw(st.sampled_from((None, 1, 129))))


@given(shape=shapes())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_sound_disk_of_any_shape_is_what_it_was_made_of_and_what_qemu_reads(shape: Shape, tmp_path: Path) -> None:
    size = shape.grain * SECTOR
    image = hosted(
        shape.grains,
        shape.capacity,
        grain=shape.grain,
        per_table=shape.per_table,
        packed=shape.packed,
        alone=shape.before is None,
    )
    made = expected(shape.grains, shape.capacity * SECTOR, size)
    disk = tmp_path / "disk.vmdk"
    if shape.before is None:
        image.write(disk)
    else:
        first = full(shape.before * SECTOR)
        (tmp_path / "flat").write_bytes(first)
        image.write(tmp_path / "sparse")
        lines = f'RW {shape.before} FLAT "flat" 0', f'RW {shape.capacity} SPARSE "sparse"'
        disk.write_bytes(descriptor("twoGbMaxExtentSparse", *lines))
        made = first + made
    assert content(disk) == made
    assert second_opinion(disk) == "qemu: same"


@pytest.mark.parametrize("at", [56, 13312])
def test_the_second_opinion_can_disagree(at: int, tmp_path: Path) -> None:
    """Where the directory is, and its first entry: we read on by the redundant one."""
    image = hosted({0: full(65536)}, 1280)
    disk = tmp_path / "disk.vmdk"
    data = bytearray(image.data)
    assert image.directory == 13312
    data[at : at + 4] = bytes(4) if at == image.directory else b"\0\0\1\0"
    disk.write_bytes(data)
    assert content(disk)[:65536] == full(65536)
    assert second_opinion(disk) in ("qemu: redundant tables", "qemu: refused")
