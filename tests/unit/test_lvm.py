"""LVM metadata of volumes that no tool makes without a kernel that has device-mapper: RAID 1 and snapshots."""

from __future__ import annotations

import struct

import pytest

from hyper2kvmd.model.disks import Volume
from hyper2kvmd.volumes.layout import read_layout
from tests.support.bytes_reader import Bytes
from tests.support.lvm import DATA, EXTENT, IDS, MIB, group, lv, physical_volume

CLEAN = (1 << 64) - 1


def on(pv: int, extent: int) -> str:
    return f'type = "striped" stripe_count = 1 stripes = ["pv{pv}", {extent}]'


HIDDEN = '"READ", "WRITE"'


def raid1(*, image_status: str = HIDDEN, status: str = '"READ", "WRITE", "VISIBLE"') -> str:
    """A RAID 1 of four extents: metadata in extent 0 of each physical volume, images from extent 1 on."""
    parts = [lv("root", 'type = "raid1" device_count = 2 raids = ["m0", "i0", "m1", "i1"]', status=status)]
    for number in (0, 1):
        parts.append(lv(f"m{number}", on(number, 0), extents=1, status=HIDDEN))
        parts.append(lv(f"i{number}", on(number, 1), status=image_status))
    return "".join(parts)


def volumes(
    logical: str,
    *,
    flags: str = "",
    states: tuple[dict[str, int], dict[str, int]] = ({}, {}),
    planted: dict[int, bytes] | None = None,
) -> dict[str, Volume]:
    """`planted` in the first disk, by byte offset."""
    text = group(logical, physical=2, flags=flags)
    disks = [physical_volume(number, text) for number in (0, 1)]
    for disk, state in zip(disks, states, strict=True):
        told = {"magic": 0x64526D44, "events": 5, "failed": 0, "recovered": CLEAN, "synced": CLEAN, "level": 1} | state
        struct.pack_into("<4I", disk, DATA, told["magic"], 0, 2, 0)
        numbers = (told["events"], told["failed"], told["recovered"], told["synced"], told["level"])
        struct.pack_into("<4Qi", disk, DATA + 16, *numbers)
        disk[DATA + 4096 : DATA + 4100] = b"bitm"
        struct.pack_into("<QII", disk, DATA + 4096 + 40, 4 * EXTENT // 512, 0, 65536)
        disk[DATA + 4096 + 256] = told.get("dirty", 0)
    for offset, data in (planted or {}).items():
        disks[0][offset : offset + len(data)] = data
    layout = read_layout([Bytes(bytes(disk)) for disk in disks])
    return {volume.lv or "": volume for volume in layout.volumes if volume.kind == "lv"}


def test_a_raid_1_in_sync_is_a_mirror() -> None:
    (root,) = volumes(raid1()).values()
    assert root.obstacle is None
    (stretch,) = root.stretches
    assert stretch.kind == "mirror"
    assert [(leg.disk, leg.offset, leg.length) for leg in stretch.legs] == [(n, 2 * MIB, 4 * MIB) for n in (0, 1)]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ({"magic": 0}, "damaged"),
        ({"events": 4}, "out of date"),
        ({"failed": 2}, "failed"),
        ({"recovered": 0}, "rebuilt"),
        ({"synced": 0}, "rebuilt"),
        ({"level": 5}, "failed"),
        ({"dirty": 1}, "not stopped cleanly"),
    ],
)
def test_a_raid_1_whose_images_may_differ_is_refused(state: dict[str, int], word: str) -> None:
    (root,) = volumes(raid1(), states=({}, state)).values()
    assert root.stretches == () and word in (root.obstacle or "")


@pytest.mark.parametrize(
    "logical",
    [raid1(image_status='"READ", "WRITE", "REBUILD"'), raid1(status='"READ", "VISIBLE", "NOTSYNCED"')],
)
def test_images_that_were_never_the_same_are_refused(logical: str) -> None:
    (root,) = volumes(logical).values()
    assert root.stretches == () and "never synchronised" in (root.obstacle or "")


def test_a_physical_volume_that_was_missing_is_not_used_again() -> None:
    (root,) = volumes(raid1(), flags='flags = ["MISSING"]').values()
    assert "not among the disks" in (root.obstacle or "")


def test_only_a_volume_that_no_copy_completes_is_incomplete() -> None:
    plain = volumes(lv("root", on(1, 1)), flags='flags = ["MISSING"]')["root"]
    assert plain.incomplete and not volumes(lv("root", on(1, 1)))["root"].incomplete
    assert not volumes(raid1(), flags='flags = ["MISSING"]')["root"].incomplete


def test_the_missing_physical_volume_is_named() -> None:
    text = group(lv("root", on(1, 1)), physical=2).replace("pv1 {", 'pv1 { device = "/dev/sda3"')
    (root,) = [volume for volume in read_layout([Bytes(bytes(physical_volume(0, text)))]).volumes if volume.lv]
    assert root.incomplete and f"physical volume {IDS[1]} (/dev/sda3), which is not among the disks" in str(
        root.obstacle
    )
    text = text.replace("/dev/sda3", "/dev/\x1b[2J" + "x" * 500)
    (root,) = [volume for volume in read_layout([Bytes(bytes(physical_volume(0, text)))]).volumes if volume.lv]
    assert str(root.obstacle).isprintable() and len(str(root.obstacle)) < 300


def test_a_volume_with_a_snapshot_is_not_written_to() -> None:
    snapshot = 'type = "snapshot" chunk_size = 8 origin = "root" cow_store = "snap"'
    found = volumes(lv("root", on(0, 0)) + lv("snap", on(1, 0)) + lv("snapshot0", snapshot, status=HIDDEN))
    assert "has a snapshot" in (found["root"].obstacle or "")
    assert "is a snapshot" in (found["snap"].obstacle or "")


@pytest.mark.parametrize("kind", ["thin", "cache", "raid5", "raid10", "mirror", "integrity", "vdo", "error"])
def test_what_cannot_be_mapped_is_named(kind: str) -> None:
    (root,) = volumes(lv("root", f'type = "{kind}"')).values()
    assert root.obstacle == f"a segment of type {kind} cannot be mapped"


def test_a_volume_made_of_itself_is_damaged() -> None:
    (root,) = volumes(lv("root", 'type = "striped" stripe_count = 1 stripes = ["root", 0]')).values()
    assert root.obstacle == "its LVM metadata is damaged"


LABEL = struct.pack("<8sQII8s", b"LABELONE", 1, 0, 32, b"LVM2 001")
EXT4 = {DATA + 1024 + 56: b"\x53\xef", DATA + 1024 + 96: b"\x40"}


@pytest.mark.parametrize(
    ("planted", "word"),
    [({}, None), ({5 * MIB + 512: LABEL}, "LVM2_member"), ({5 * MIB + 4096: struct.pack("<I", 0xA92B4EFC)}, "raid")],
)
def test_a_part_that_the_host_would_take_for_its_own(planted: dict[int, bytes], word: str | None) -> None:
    """Each part of a volume is a device of the host's while it is mounted, and `lvs` looks into every device."""
    segments = "".join(
        f"segment{number} {{ start_extent = {at} extent_count = 1 {on(0, extent)} }}"
        for number, at, extent in ((1, 0, 0), (2, 1, 4))
    )
    logical = f'root {{ id = "x" status = ["READ", "WRITE", "VISIBLE"] segment_count = 2 {segments} }}'
    (root,) = volumes(logical, planted=EXT4 | planted).values()
    assert root.content == "ext4" and len(root.segments) == 2
    assert (root.obstacle is None) if word is None else word in (root.obstacle or "")
