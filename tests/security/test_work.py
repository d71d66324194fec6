"""Disks made to keep their reader busy or to fill its memory: all structures of a machine share one budget."""

from __future__ import annotations

import itertools
import os
import struct
import uuid
import zlib
from pathlib import Path

import pytest

from hyper2kvmd import spec
from hyper2kvmd.disk import key_files
from hyper2kvmd.disk.key_files import read_keys
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.disks import Layout, Segment, Volume
from hyper2kvmd.volumes import budget, luks, lvm
from hyper2kvmd.volumes.layout import read_layout
from hyper2kvmd.volumes.mapping import Unmappable, linear, mirrored
from tests.support.bytes_reader import Bytes
from tests.support.luks import header_of
from tests.support.lvm import group, lv, physical_volume

SECTOR = 512
TOO_LONG, TOO_MANY = "take too long to read", "too many pieces"


def disk_of(starts: list[bytes], sectors: int) -> bytes:
    """A GPT disk with partitions of so many sectors, that begin with these bytes."""
    entries, first = bytearray(1024 * 128), 600
    disk = bytearray((first + sectors * len(starts) + 64) * SECTOR)
    for number, start in enumerate(starts):
        at = first + sectors * number
        disk[at * SECTOR : at * SECTOR + len(start)] = start
        place = uuid.uuid4().bytes, uuid.uuid4().bytes, at, at + sectors - 1
        struct.pack_into("<16s16sQQ", entries, number * 128, *place)
    disk[2 * SECTOR : 2 * SECTOR + len(entries)] = entries
    table = bytearray(struct.pack("<8sIIIIQQQQ", b"EFI PART", 0x10000, 92, 0, 0, 1, 0, 0, 0))
    table += bytes(16) + struct.pack("<QIII", 2, 1024, 128, zlib.crc32(entries))
    struct.pack_into("<I", table, 16, zlib.crc32(table))
    disk[SECTOR : SECTOR + len(table)] = table
    return bytes(disk)


def tries(disk: bytes, keys: list[bytes]) -> tuple[list[Volume], int]:
    """The insides of the disk's containers, and how often a key was tried on a slot: each time two keys are derived."""
    before = luks._derive.cache_info().misses
    layout = read_layout([Bytes(disk)], keys)
    return of_kind(layout, "luks"), (luks._derive.cache_info().misses - before) // 2


def of_kind(layout: Layout, kind: str) -> list[Volume]:
    return [volume for volume in layout.volumes if volume.kind == kind]


def test_containers_and_keys_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "WORK_SECONDS", 2.0)
    disk = disk_of([header_of(salt=os.urandom(32), seconds=0.15) for _ in range(40)], 700)
    inside, tried = tries(disk, [f"key {number}".encode() for number in range(8)])
    assert len(inside) == 40
    assert 8 <= tried <= 2.0 / (0.15 + luks.SLOT_SECONDS)
    assert "none of the given keys" in (inside[0].obstacle or "")
    assert all(TOO_LONG in (volume.obstacle or "") for volume in inside[-30:])


def test_cheap_derivations_without_end_share_it_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stripes of a key slot have to be read and merged for each key."""
    monkeypatch.setattr(budget, "WORK_SECONDS", 1.0)
    disk = disk_of([header_of(salt=os.urandom(32), seconds=0.0) for _ in range(40)], 700)
    _, tried = tries(disk, [f"key {number}".encode() for number in range(8)])
    assert 0 < tried <= 1.0 / luks.SLOT_SECONDS


def test_a_digest_of_many_blocks_costs_what_it_costs() -> None:
    """PBKDF2 begins anew for each block of what it derives."""
    derivation = luks._Derivation("pbkdf2", b"", 1_000_000, "sha1")
    assert derivation.seconds(1024) > 50 * derivation.seconds(20)


def nested_volumes(levels: int, width: int) -> str:
    """A logical volume of pieces that are whole logical volumes, and so on."""
    extents, parts = 1, [lv("v0", 'type = "striped" stripe_count = 1 stripes = ["pv0", 0]', extents=1)]
    for level in range(1, levels + 1):
        segments = "".join(
            f"segment{n + 1} {{ start_extent = {n * extents} extent_count = {extents}"
            f' type = "striped" stripe_count = 1 stripes = ["v{level - 1}", 0] }}\n'
            for n in range(width)
        )
        extents *= width
        parts.append(f'v{level} {{ status = ["VISIBLE"] segment_count = {width} {segments} }}')
    return "".join(reversed(parts))


def test_volumes_in_volumes_grow_exponentially(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kilobyte of metadata stands for as many pieces as one likes."""
    monkeypatch.setattr(budget, "PIECES", 2000)
    found = of_kind(read_layout([Bytes(bytes(physical_volume(0, group(nested_volumes(5, 6)))))]), "lv")
    assert [volume.name for volume in found] == ["vg/v5"]
    assert TOO_MANY in (found[0].obstacle or "")


def test_metadata_of_many_physical_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [group(lv("root", 'type = "striped" stripes = ["pv0", 0]'), name=f"vg{number}") for number in range(8)]
    monkeypatch.setattr(lvm, "METADATA_LIMIT", 3 * len(texts[0]) + 64)
    disks = [Bytes(bytes(physical_volume(number, text))) for number, text in enumerate(texts)]
    assert len({volume.vg for volume in of_kind(read_layout(disks), "lv")}) == 3
    same = [Bytes(bytes(physical_volume(number, texts[0]))) for number in range(8)]
    assert len({volume.vg for volume in of_kind(read_layout(same), "lv")}) == 1


def test_reading_metadata_is_paid_for_each_physical_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    text = group(lv("root", 'type = "striped" stripes = ["pv7", 0]'))
    disks = [Bytes(bytes(physical_volume(number, text))) for number in range(8)]
    monkeypatch.setattr(budget, "WORK_SECONDS", 4.5 * len(text) / lvm.BYTES_A_SECOND)
    (volume,) = of_kind(read_layout(disks), "lv")
    assert "not among the disks" in (volume.obstacle or "")


def test_copies_split_in_many_places() -> None:
    """Of pieces that all end elsewhere, each copy is split at all those ends."""
    copies = [
        linear(Segment(offset=0, length=n * SECTOR), Segment(offset=1 << 30, length=(200 - n) * SECTOR))
        for n in range(1, 100)
    ]
    assert len(mirrored(copies[:30])) == 31
    with pytest.raises(Unmappable, match=TOO_MANY):
        mirrored(copies)


def test_more_key_files_than_a_machine_needs() -> None:
    names = ", ".join(f"/keys/{number}" for number in range(17))
    with pytest.raises(spec.Rejected) as caught:
        spec.parse(f"vmdk: /a.vmdk\nluks_keyfile: [{names}]\n", default_name="web01", base=None)
    (problem,) = caught.value.problems
    assert (problem.code, problem.message) == ("value-invalid", "luks_keyfile has 17 elements, more than 16")


def test_a_key_file_named_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read once, by whatever name, and counts once."""
    monkeypatch.setattr(key_files, "TOTAL_LIMIT", 3 << 19)
    key = tmp_path / "key"
    key.write_bytes(bytes(1 << 20))
    os.link(key, tmp_path / "other")
    names = itertools.cycle((key, tmp_path / "other"))
    assert [len(one) for one in read_keys(tuple(itertools.islice(names, 64)))] == [1 << 20]


def test_key_files_that_are_too_large_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_files, "TOTAL_LIMIT", 2500)
    paths = tuple(tmp_path / f"key{number}" for number in range(3))
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 1000)
    assert len(read_keys(paths[:2])) == 2
    with pytest.raises(MigrationFailed, match="key2 and the key files before it") as caught:
        read_keys(paths)
    assert caught.value.code == "key-unusable"
