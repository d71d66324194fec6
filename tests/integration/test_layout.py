"""The layout reader against disks that the system's own tools made, with blkid and lvs as witnesses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyper2kvmd.booting import firmware_of
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.volumes.layout import read_layout
from tests.support.disks import FileReader, blkid, empty_disk, loop, sh
from tests.support.guest_on_disk import mtools, put
from tests.support.patched import PatchedReader

MIB = 1 << 20
FILE_SYSTEMS = {
    "ext4": (32, ["mkfs.ext4", "-q", "-L", "a-label"]),
    "ext3": (32, ["mkfs.ext3", "-q"]),
    "ext2": (32, ["mkfs.ext2", "-q"]),
    "xfs": (320, ["mkfs.xfs", "-q", "-L", "xlabel"]),
    "btrfs": (128, ["mkfs.btrfs", "-q", "-L", "blabel"]),
    "vfat": (64, ["mkfs.vfat", "-n", "FLABEL"]),
    "swap": (16, ["mkswap", "-L", "slabel"]),
    "LVM2_member": (16, ["pvcreate", "-q", "-y"]),
    "crypto_LUKS": (
        32,
        ["cryptsetup", "-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file"],
    ),
}


def layout_of(disk: Path) -> Layout:
    reader = FileReader(disk)
    try:
        return read_layout([reader])
    finally:
        reader.close()


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_whole_disk_is_told_as_blkid_tells_it(kind: str, tmp_path: Path) -> None:
    size, command = FILE_SYSTEMS[kind]
    disk = empty_disk(tmp_path / "disk.raw", size)
    key = tmp_path / "key"
    key.write_text("secret")
    arguments = [*command, str(disk)] if kind != "crypto_LUKS" else [*command, str(key), str(disk)]
    with loop(disk) as device:
        sh(*(device if word == str(disk) else word for word in arguments))
        witness = blkid(device)
    layout = layout_of(disk)
    assert layout.tables == ("none",)
    assert layout.volumes[0].content == kind == witness["TYPE"]
    assert layout.volumes[0].uuid == witness["UUID"]
    assert layout.volumes[0].label == witness.get("LABEL")


@pytest.mark.parametrize("how", ["another device", "a mount option", "itself"])
def test_an_ext4_with_its_journal_elsewhere_spans_devices(how: str, tmp_path: Path) -> None:
    """The kernel would open a device of the host's for it."""
    disk, journal = (empty_disk(tmp_path / name, 32) for name in ("disk.raw", "journal.raw"))
    with loop(disk) as device, loop(journal) as other:
        if how == "another device":
            sh("mke2fs", "-q", "-b", "4096", "-O", "journal_dev", other)
            sh("mke2fs", "-q", "-b", "4096", "-t", "ext4", "-J", f"device={other}", device)
        else:
            sh("mkfs.ext4", "-q", device)
        if how == "a mount option":
            sh("tune2fs", "-E", f"mount_opts=journal_path={other}", device)
    (volume,) = layout_of(disk).volumes
    assert (volume.content, volume.multi_device) == ("ext4", how != "itself")


def test_gpt_partitions_carry_what_fstab_may_name(tmp_path: Path) -> None:
    disk = empty_disk(tmp_path / "disk.raw", 256)
    sh("sgdisk", "-n1:2048:+40M", "-t1:ef00", "-c1:EFI System", "-n2:0:+64M", "-c2:root", "-n3:0:0", "-t3:8200", disk)
    with loop(disk, offset=MIB, length=40 * MIB) as device:
        sh("mkfs.vfat", device)
    layout = layout_of(disk)
    partitions = {volume.number: volume for volume in layout.volumes}
    assert layout.tables == ("gpt",)
    assert [partitions[n].partlabel for n in (1, 2)] == ["EFI System", "root"]
    assert partitions[1].content == "vfat"
    for number, volume in partitions.items():
        told = sh("sgdisk", "-i", str(number), disk)
        assert volume.partuuid is not None
        assert volume.partuuid.upper() in told
        assert f"First sector: {volume.segments[0].offset // 512} " in told
        assert f"Partition size: {volume.length // 512} " in told
    assert firmware_of(layout) == "bios"  # nothing that UEFI could start


def test_a_boot_loader_on_an_efi_partition_means_uefi(tmp_path: Path) -> None:
    disk = empty_disk(tmp_path / "disk.raw", 64)
    sh("sgdisk", "-n1:2048:+40M", "-t1:ef00", disk)
    with loop(disk, offset=MIB, length=40 * MIB) as device:
        sh("mkfs.vfat", device)
    partition = f"{disk}@@{MIB}"
    mtools("mmd", "-i", partition, "::/EFI", "::/EFI/debian")
    program = put(tmp_path, "grubx64.efi", b"MZ program")
    mtools("mcopy", "-i", partition, program, "::/EFI/debian/")
    layout = layout_of(disk)
    assert firmware_of(layout) == "uefi" and layout.boot_code == ("none",)


def test_a_damaged_primary_gpt_is_read_from_the_backup(tmp_path: Path) -> None:
    disk = empty_disk(tmp_path / "disk.raw", 64)
    sh("sgdisk", "-n1:2048:0", disk)
    with disk.open("r+b") as file:
        file.seek(512)
        file.write(bytes(512))
    assert [volume.number for volume in layout_of(disk).volumes] == [1]


def test_mbr_with_logical_partitions(tmp_path: Path) -> None:
    disk = empty_disk(tmp_path / "disk.raw", 128)
    script = "label: dos\nlabel-id: 0x1234abcd\n,40M,L,*\n,,E\n,16M,S\n,,L\n"
    sh("sfdisk", "-q", disk, stdin=script)
    layout = layout_of(disk)
    assert layout.tables == ("dos",)
    assert [(v.number, v.parttype, v.partuuid) for v in layout.volumes] == [
        (1, "83", "1234abcd-01"),
        (2, "05", "1234abcd-02"),
        (5, "82", "1234abcd-05"),
        (6, "83", "1234abcd-06"),
    ]
    listed = [line.split() for line in sh("sfdisk", "-l", "-o", "Device,Start,Sectors", disk).splitlines()]
    starts = [int(words[1]) * 512 for words in listed if words and words[0].startswith(str(disk)) and len(words) == 3]
    assert [v.segments[0].offset for v in layout.volumes] == starts
    assert firmware_of(layout) == "bios"


@pytest.fixture
def lvm_disk(tmp_path: Path) -> tuple[Path, dict[str, list[str]]]:
    """A disk with one PV: a linear LV in one piece, one in two pieces, and what lvs says of them."""
    disk = empty_disk(tmp_path / "disk.raw", 256)
    sh("sfdisk", "-q", disk, stdin="label: dos\n,,8e\n")
    name = f"h2ktest{tmp_path.name.replace('_', '')}"[-40:]
    with loop(disk, offset=MIB, length=255 * MIB) as device:
        options = ["--devices", device, "-q", "--driverloaded", "n"]
        sh("pvcreate", *options, "-y", device)
        sh("vgcreate", *options, name, device)
        create = ["lvcreate", *options, "-an", "-Zn", "-Wn", "-y"]
        sh(*create, "-n", "root", "-l", "16", name)
        sh(*create, "-n", "wall", "-l", "4", name)
        sh("lvextend", *options, "-l", "+4", f"{name}/root")
        told = sh("lvs", *options, "--noheadings", "--segments", "-o", "lv_name,seg_start_pe,seg_size_pe,seg_pe_ranges")
    segments: dict[str, list[str]] = {}
    for line in told.splitlines():
        lv, _, _, ranges = line.split()
        segments.setdefault(lv, []).append(ranges.rpartition(":")[2])
    return disk, segments


def test_logical_volumes_are_byte_ranges(lvm_disk: tuple[Path, dict[str, list[str]]]) -> None:
    disk, told = lvm_disk
    volumes = {v.lv: v for v in layout_of(disk).volumes if v.kind == "lv"}
    assert set(volumes) == set(told) == {"root", "wall"}
    assert len(told["root"]) == 2
    extent = 4 * MIB
    for lv, ranges in told.items():
        volume: Volume = volumes[lv]
        wanted = []
        for piece in ranges:
            first, last = map(int, piece.split("-"))
            wanted.append((2 * MIB + first * extent, (last - first + 1) * extent))
        assert [(s.offset, s.length) for s in volume.segments] == wanted
        assert volume.obstacle is None


def test_what_a_logical_volume_holds_is_read_through_its_pieces(lvm_disk: tuple[Path, dict[str, list[str]]]) -> None:
    disk, _ = lvm_disk
    root = next(v for v in layout_of(disk).volumes if v.lv == "root")
    fs = empty_disk(disk.with_name("fs.raw"), root.length >> 20)
    sh("mkfs.ext4", "-q", "-U", "6d3b4a0e-1111-4222-8333-123456789abc", fs)
    data = fs.read_bytes()
    with disk.open("r+b") as file:
        for segment in root.segments:
            file.seek(segment.offset)
            file.write(data[: segment.length])
            data = data[segment.length :]
    root = next(v for v in layout_of(disk).volumes if v.lv == "root")
    assert (root.content, root.uuid) == ("ext4", "6d3b4a0e-1111-4222-8333-123456789abc")


PLACES = st.one_of(
    st.integers(0, 1023),
    st.integers(MIB, MIB + 1023),
    st.integers(MIB + 4096, MIB + 4096 + 8191),
    st.integers(MIB + 0x10000, MIB + 0x10400),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(patches=st.lists(st.tuples(PLACES, st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_damaged_tables_never_lead_outside_the_disk(
    patches: list[tuple[int, bytes]], lvm_disk: tuple[Path, dict[str, list[str]]]
) -> None:
    reader = PatchedReader(lvm_disk[0], patches)
    try:
        layout = read_layout([reader])
        for volume in layout.volumes:
            for segment in volume.segments:
                assert segment.offset + segment.length <= reader.size
    finally:
        reader.close()


def test_lvm_alone_is_reason_to_reserve_the_whole_disk(lvm_disk: tuple[Path, dict[str, list[str]]]) -> None:
    assert layout_of(lvm_disk[0]).written_by_scatter(0) == "LVM"
