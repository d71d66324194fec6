"""Sizes of new disks: what may be asked for, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout, LocalFile, Segment, SourceDisk, Stretch, Volume
from hyper2kvmd.resizing import growth, new_sizes

GIB, TIB = 1 << 30, 1 << 40
DISK = SourceDisk(at=LocalFile(path=Path("/a")), subformat="x", virtual_size=20 * GIB, data_bytes=1, files=())
NOTHING = Layout(tables=())


def sizes(*asked: str, disks: int = 2) -> tuple[int, ...]:
    return new_sizes(Migration(vmdk=(Path("/a"),), vm_name="web01", resize=asked), (DISK,) * disks)


def volume(offset: int, content: str, number: int) -> Volume:
    stretch = Stretch(legs=(Segment(offset=offset, length=1),))
    return Volume(kind="partition", name=f"partition {number}", content=content, stretches=(stretch,))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((), (20 * GIB, 20 * GIB)),
        (("+10G",), (30 * GIB, 20 * GIB)),
        (("50G",), (50 * GIB, 20 * GIB)),
        (("20G",), (20 * GIB, 20 * GIB)),
        (("+0", "+512M"), (20 * GIB, 20 * GIB + GIB // 2)),
        (("52428800K", "+1024K"), (50 * GIB, 20 * GIB + (1 << 20))),
        (("1T", "64T"), (TIB, 64 * TIB)),
    ],
)
def test_sizes(asked: tuple[str, ...], found: tuple[int, ...]) -> None:
    assert sizes(*asked) == found


@pytest.mark.parametrize("asked", [("19G",), ("+0", "10M"), ("65T",), ("+64T",), ("+1G", "+1G", "+1G")])
def test_sizes_that_a_disk_cannot_have(asked: tuple[str, ...]) -> None:
    with pytest.raises(MigrationFailed) as caught:
        sizes(*asked)
    assert caught.value.code == "resize-invalid"


@pytest.mark.parametrize(
    ("volumes", "hint"),
    [
        ((), "Grow it in the running guest"),
        (
            (volume(2, "xfs", 1), volume(1, "ext4", 2)),
            "In the running guest, grow partition 1 with growpart, then its xfs with xfs_growfs",
        ),
        (
            (volume(1, "ext4", 1), volume(2, "swap", 2)),
            "Add a partition in the running guest: the last one (partition 2) contains swap",
        ),
        (
            (volume(0, "unknown", 0).with_changes(kind="disk"),),
            "Grow what is on it in the running guest, or add a partition",
        ),
        ((volume(0, "ext4", 0).with_changes(kind="disk"),), "In the running guest, grow its ext4 with resize2fs"),
    ],
)
def test_what_is_to_be_done_in_the_guest(volumes: tuple[Volume, ...], hint: str) -> None:
    (one,) = growth((21 * GIB, 20 * GIB), (DISK, DISK), Layout(tables=(), volumes=volumes))
    assert one.hint == hint
    assert one.message.startswith("disk 1 grows from 20.0 GiB to 21.0 GiB")


def test_nothing_is_said_of_a_disk_that_stays() -> None:
    assert list(growth((20 * GIB,), (DISK,), NOTHING)) == []
