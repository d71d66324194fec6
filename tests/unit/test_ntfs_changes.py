"""The changed blocks of an NTFS volume: only those that differ, and only inside the volume."""

from __future__ import annotations

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.volumes.ntfs.changes import BLOCK, changes_of
from tests.support.ntfs import MemoryVolume

SIZE = 64 * BLOCK
NEW = bytes(range(256)) * (2 * BLOCK // 256)
RUNS = ([3 * BLOCK, BLOCK, 0xFF], [8 * BLOCK, 2 * BLOCK, -1], [40 * BLOCK, BLOCK, 0])


def old_volume() -> MemoryVolume:
    return MemoryVolume(bytearray(b"old bytes of NTFS" * SIZE)[:SIZE])


def new_volume() -> MemoryVolume:
    volume = old_volume()
    for offset, length, byte in RUNS:
        volume.data[offset : offset + length] = NEW if byte < 0 else bytes((byte,)) * length
    return volume


def test_changes_turn_the_old_volume_into_the_new_one() -> None:
    volume = old_volume()
    changes_of(volume, RUNS, NEW).write(volume)
    assert volume.data == new_volume().data


def test_blocks_that_are_as_before_are_left_out() -> None:
    volume = new_volume()
    assert changes_of(volume, RUNS, NEW).runs == ()
    volume.data[9 * BLOCK] ^= 1
    (run,) = changes_of(volume, RUNS, NEW).runs
    assert (run.offset, run.length) == (9 * BLOCK, BLOCK)


@pytest.mark.parametrize(
    ("runs", "count"),
    [
        ([[SIZE, BLOCK, 0]], 0),
        ([[SIZE - BLOCK, 2 * BLOCK, 0]], 0),
        ([[-BLOCK, BLOCK, 0]], 0),
        ([[BLOCK, 0, 0]], 0),
        ([[BLOCK, -BLOCK, 0]], 0),
        ([[100, BLOCK, 0]], 0),
        ([[BLOCK, BLOCK, 256]], 0),
        ([[BLOCK, BLOCK, -2]], 0),
        ([[2 * BLOCK, BLOCK, 0], [BLOCK, BLOCK, 0]], 0),
        ([[BLOCK, 2 * BLOCK, 0], [2 * BLOCK, BLOCK, 0]], 0),
        ([[BLOCK, BLOCK, -1]], BLOCK - 1),
        ([[BLOCK, BLOCK, -1]], BLOCK + 1),
        ([[BLOCK, BLOCK, 0]], 1),
        ([[1 << 70, BLOCK, 0]], 0),
        ([[BLOCK, BLOCK]], 0),
        ([[BLOCK, BLOCK, 1.0]], 0),
        ([[True, BLOCK, 0]], 0),
        (["runs"], 0),
        ([[0, BLOCK, 0]] * 100_001, 0),
    ],
)
def test_a_process_that_lies_about_its_changes_is_refused(runs: list[object], count: int) -> None:
    with pytest.raises(MigrationFailed) as failure:
        changes_of(old_volume(), runs, bytes(count))
    assert failure.value.code == "ntfs-tool-faulty"
