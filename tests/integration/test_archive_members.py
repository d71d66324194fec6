"""Disks that are read where they are in an archive: the same content as of the file itself, for every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import ArchiveMember, DiskRef, EmptyDisk, LocalFile
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.stages.plan import read_disks
from tests.support import vmdk_images
from tests.support.archives import packed
from tests.support.benches import plan_for
from tests.support.converting import convert_planned, order_for
from tests.support.disks import sh
from tests.support.foreign_disks import EXACT, make, make_raw
from tests.support.vmdk import make as make_vmdk

FORMATS = {"qcow2": (), "raw": (), "vdi": (), "vhd": EXACT, "vhdx": ()}
SMALL = ((0, 2), (5, 1))
SUBFORMATS = ("streamOptimized", "monolithicSparse")


def planned(folder: Path, *refs: DiskRef) -> Plan:
    with Sources(folder) as sources:
        disks, layout = read_disks(sources, refs)
    return plan_for(disks, layout)


def converted(work: Path, *refs: DiskRef, **wanted: object) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The images, and the evidence."""
    work.mkdir(exist_ok=True)
    migration = Migration.model_validate({"ova": "/exports/web01.ova", "vm_name": "web01", **wanted})
    image = convert_planned(planned(work, *refs), order_for(migration, work))
    return tuple(disk.path for disk in image.disks), image.evidence


def same(image: Path, raw: Path) -> None:
    sh("qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, raw)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_member_of_every_format(tmp_path: Path, fmt: str) -> None:
    raw = make_raw(tmp_path / "made.source")
    (member,) = packed(tmp_path / "web01.ova", make(tmp_path, fmt, FORMATS[fmt], raw=raw))
    (image,), evidence = converted(tmp_path / "work", member, verify="content")
    sh("truncate", "-s", str(qemu_img.virtual_size(image, "qcow2")), raw)
    same(image, raw)
    assert any("the source read by QEMU" in line for line in evidence), evidence


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_a_vmdk(tmp_path: Path, subformat: str) -> None:
    raw = make_raw(tmp_path / "made.source")
    vmdk = make_vmdk(tmp_path, subformat, raw.read_bytes(), raw.stat().st_size)
    (member,) = packed(tmp_path / "web01.ova", vmdk)
    (image,), evidence = converted(tmp_path / "work", member, verify="content")
    same(image, raw)
    assert any("the source read by QEMU" in line for line in evidence), evidence


def test_two_members_of_one_archive(tmp_path: Path) -> None:
    raws = [make_raw(tmp_path / name, size, SMALL) for name, size in (("a.source", 9 << 20), ("b.source", 11 << 20))]
    disks = [
        make_vmdk(tmp_path, "streamOptimized", raw.read_bytes(), raw.stat().st_size, name)
        for raw, name in zip(raws, ("a.vmdk", "b.vmdk"), strict=True)
    ]
    images, _ = converted(tmp_path / "work", *packed(tmp_path / "web01.ova", *disks), verify="content")
    for image, raw in zip(images, raws, strict=True):
        same(image, raw)


def test_a_member_with_an_odd_number_of_bytes(tmp_path: Path) -> None:
    """QEMU reads whole sectors; a compressed QCOW2 ends anywhere."""
    raw = make_raw(tmp_path / "made.source", 9 << 20, SMALL)
    disk = make(tmp_path, "qcow2", ("-c",), raw=raw)
    with disk.open("ab") as file:
        file.write(b"\0" * (512 - disk.stat().st_size % 512 + 100))
    for archive in packed(tmp_path / "last.ova", disk):
        (image,), _ = converted(tmp_path / "work", archive, verify="content")
        same(image, raw)


def test_windows_that_overlap_are_one_disk(tmp_path: Path) -> None:
    (member,) = packed(tmp_path / "web01.ova", make(tmp_path, "raw", raw=make_raw(tmp_path / "s", 4 << 20, ((0, 2),))))
    inside = member.with_changes(member="other.raw", offset=member.offset + 1024, length=2048)
    after = member.with_changes(member="third.raw", offset=member.offset + 3072, length=512)
    with Sources(tmp_path) as sources:
        assert len(sources.open([inside, after])) == 2
    with Sources(tmp_path) as sources, pytest.raises(MigrationFailed) as caught:
        sources.open([member, inside])
    assert caught.value.code == "source-repeated"


def test_a_member_that_ends_after_its_archive(tmp_path: Path) -> None:
    archive = tmp_path / "web01.ova"
    archive.write_bytes(bytes(1024))
    member = ArchiveMember(archive=archive, member="a.raw", offset=512, length=513)
    with pytest.raises(MigrationFailed) as caught, open_disk(member, tmp_path):
        pass
    assert caught.value.code == "source-truncated"


def test_a_vmdk_of_several_members_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "disk.vmdk").write_bytes(vmdk_images.descriptor("monolithicFlat", 'RW 8 FLAT "disk-flat.vmdk" 0'))
    (tmp_path / "disk-flat.vmdk").write_bytes(bytes(4096))
    first, _ = packed(tmp_path / "web01.ova", tmp_path / "disk.vmdk", tmp_path / "disk-flat.vmdk")
    with pytest.raises(MigrationFailed) as caught, open_disk(first, tmp_path):
        pass
    assert caught.value.code == "source-unsupported"
    assert "'disk-flat.vmdk' in the same archive" in caught.value.message
    assert str(tmp_path / "web01.ova" / "disk.vmdk") in caught.value.message


def test_an_archive_that_changes_is_a_changed_source(tmp_path: Path) -> None:
    (member,) = packed(tmp_path / "web01.ova", make(tmp_path, "raw", raw=make_raw(tmp_path / "s", 4 << 20, ((0, 2),))))
    with Sources(tmp_path) as sources:
        (disk,) = sources.open([member])
        disk.require_unchanged()
        member.archive.touch()
        with pytest.raises(MigrationFailed) as caught:
            disk.require_unchanged()
    assert caught.value.code == "source-changed"


def test_an_empty_disk_beside_another_one(tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source", 9 << 20, SMALL)
    disk = make(tmp_path, "raw", raw=raw)
    refs = (LocalFile(path=disk), EmptyDisk(number=2, size=3 << 20))
    (first, second), evidence = converted(tmp_path / "work", *refs, verify="content")
    same(first, raw)
    assert qemu_img.virtual_size(second, "qcow2") == 3 << 20
    assert sh("qemu-img", "map", "--output=json", second).count('"zero": true') == 1
    assert "disk 2: all 3145728 bytes read the same from source and image" in evidence


@pytest.mark.parametrize("size", [513, (64 << 40) + 512])
def test_an_empty_disk_of_an_impossible_size(tmp_path: Path, size: int) -> None:
    with pytest.raises(MigrationFailed) as caught, open_disk(EmptyDisk(number=1, size=size), tmp_path):
        pass
    assert caught.value.code in ("source-corrupt", "source-unsupported")
