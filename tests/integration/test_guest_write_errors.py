"""Why a file of the guest cannot be written, on real file systems: each cause with its own remedy."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files import write_errors
from hyper2kvmd.guest.files.interface import FreeSpace
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.volumes.features import Version, unknown_features
from hyper2kvmd.volumes.superblock import identify
from tests.support.disks import FileReader, empty_disk, loop, sh
from tests.support.guest_on_disk import put, tree_of

MIB = 1 << 20


@contextmanager
def mounted(folder: Path, *make: str, options: str = "defaults", mebibytes: int = 16) -> Iterator[Path]:
    disk, place = empty_disk(folder / "disk.raw", mebibytes), folder / "mounted"
    sh(*make, disk)
    place.mkdir()
    with loop(disk) as device:
        sh("mount", "-o", options, device, place)
        try:
            yield place
        finally:
            sh("umount", place)


def fill(path: Path) -> None:
    """Every block that root may use."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def failed(tree: GuestTree) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as caught:
        tree.commit()
    return caught.value


@pytest.mark.parametrize(("attribute", "word"), [("i", "immutable"), ("a", "append-only")])
@pytest.mark.parametrize("held", ["etc/fstab", "etc"])
def test_a_file_or_folder_with_an_attribute_is_named_before_anything_is_written(
    held: str, attribute: str, word: str, tmp_path: Path
) -> None:
    with mounted(tmp_path, "mkfs.ext4", "-q") as place:
        put(place, "etc/fstab", "old\n")
        sh("chattr", f"+{attribute}", place / held)
        try:
            with tree_of(place) as tree, pytest.raises(MigrationFailed) as caught:
                tree.write_text("/etc/fstab", "new\n", fix="f", summary="s")
        finally:
            sh("chattr", f"-{attribute}", place / held)
    assert caught.value.code == "guest-file-held"
    assert f"/{held} is {word}" in caught.value.message
    assert f"chattr -{attribute} /{held}" in caught.value.hint


def test_no_free_block(tmp_path: Path) -> None:
    with mounted(tmp_path, "mkfs.ext4", "-q", "-m", "0") as place:
        put(place, "etc/fstab", "old\n")
        fill(place / "fill")
        with tree_of(place) as tree:
            tree.write_text("/etc/fstab", "new\n" * 5000, fix="f", summary="s")
            failure = failed(tree)
        assert (place / "etc/fstab").read_text() == "old\n"
    assert failure.code == "guest-full"
    assert re.search(r"file system / is full: [\d.]+ (B|KiB) and \d+ inodes are free", failure.message)
    assert "83.5 KiB and 1 inodes are needed" in failure.message
    assert "regen_initramfs" not in failure.hint


def test_no_free_inode(tmp_path: Path) -> None:
    with mounted(tmp_path, "mkfs.ext4", "-q", "-N", "64") as place:
        put(place, "boot/fstab", "old\n")
        with suppress(OSError):
            for number in range(100):
                (place / f"boot/{number}").touch()
        (tmp_path / "root").mkdir()
        with tree_of(tmp_path / "root", boot=place / "boot") as tree:
            tree.write_text("/boot/fstab", "new\n", fix="f", summary="s")
            failure = failed(tree)
    assert failure.code == "guest-full"
    assert "file system /boot is full" in failure.message and "and 0 inodes are free" in failure.message


def test_an_initramfs_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    with mounted(tmp_path, "mkfs.ext4", "-q") as place:
        initrd = put(place, "boot/initrd", bytes(6 * MIB))
        put(place, "fill", bytes(4 * MIB))
        with tree_of(place) as tree:
            tree.insert("/boot/initrd", 6 * MIB, b"more", fix="f", summary="s")
            failure = failed(tree)
        assert [path.name for path in initrd.parent.iterdir()] == ["initrd"]
    assert failure.code == "guest-full" and "7.0 MiB and 1 inodes are needed" in failure.message


@pytest.mark.root
def test_what_is_reserved_for_root_counts(tmp_path: Path) -> None:
    with mounted(tmp_path, "mkfs.ext4", "-q", "-m", "40") as place:
        put(place, "boot/initrd", b"old")
        facts = os.statvfs(place)
        put(place, "fill", bytes(facts.f_bavail * facts.f_frsize))
        assert os.statvfs(place).f_bavail == 0
        with tree_of(place) as tree:
            tree.insert("/boot/initrd", 3, b"new", fix="f", summary="s")
            tree.commit()
        assert (place / "boot/initrd").read_bytes() == b"oldnew"


def test_a_read_only_subvolume(tmp_path: Path) -> None:
    with mounted(tmp_path, "mkfs.btrfs", "-q", mebibytes=128) as place:
        sh("btrfs", "-q", "subvolume", "create", place / "root")
        put(place, "root/etc/fstab", "old\n")
        sh("btrfs", "property", "set", place / "root", "ro", "true")
        with tree_of(place / "root") as tree:
            tree.write_text("/etc/fstab", "new\n", fix="f", summary="s")
            failure = failed(tree)
    assert failure.code == "guest-read-only"
    assert "btrfs property set / ro false" in failure.hint


# ---------------------------------------------------------------- file systems newer than the host


def features(path: Path, kernel: Version) -> tuple[str, ...]:
    reader = FileReader(path)
    try:
        return unknown_features(identify(reader).type, reader, kernel)
    finally:
        reader.close()


@pytest.mark.parametrize(("feature", "kernel"), [("FEATURE_I30", (99, 0)), ("FEATURE_R29", (99, 0))])
def test_an_unknown_feature_of_ext4_is_named_as_e2fsprogs_does(feature: str, kernel: Version, tmp_path: Path) -> None:
    disk = empty_disk(tmp_path / "disk", 16)
    sh("mkfs.ext4", "-q", "-O", "orphan_file,metadata_csum_seed,casefold,large_dir,inline_data,verity", disk)
    assert features(disk, kernel) == ()
    sh("debugfs", "-w", "-R", f"feature {feature}", disk)
    assert features(disk, kernel) == (feature,)
    with loop(disk) as device:
        done = subprocess.run(["mount", device, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_every_feature_that_mkfs_makes_is_known_to_this_kernel(tmp_path: Path) -> None:
    for number, make in enumerate((["mkfs.ext4", "-q"], ["mkfs.ext3", "-q"], ["mkfs.xfs", "-q"], ["mkfs.btrfs", "-q"])):
        disk = empty_disk(tmp_path / f"disk{number}", 400)
        sh(*make, disk)
        assert features(disk, (5, 15)) == ()


def test_newer_features_of_xfs_and_btrfs(tmp_path: Path) -> None:
    xfs, btrfs = empty_disk(tmp_path / "xfs", 400), empty_disk(tmp_path / "btrfs", 400)
    sh("mkfs.xfs", "-q", xfs)
    sh("mkfs.btrfs", "-q", btrfs)
    with xfs.open("r+b") as file:
        file.seek(216)
        number = int.from_bytes(file.read(4), "big")
        file.seek(216)
        file.write((number | 1 << 5 | 1 << 25).to_bytes(4, "big"))
    assert features(xfs, (5, 15)) == ("nrext64", "incompat bit 25")
    assert features(xfs, (6, 1)) == ("incompat bit 25",)
    with btrfs.open("r+b") as file:
        file.seek(0x10000 + 0xB4)
        file.write((0b1011).to_bytes(8, "little"))
    assert features(btrfs, (5, 15)) == ("block-group-tree",)
    assert features(btrfs, (6, 1)) == ()


def test_errors_that_have_no_cause_of_their_own(tmp_path: Path) -> None:
    failure = write_errors.failed("/a", "/", OSError(errno.EIO, "Input/output error"), FreeSpace(0), FreeSpace(0))
    assert failure.code == "guest-write-failed" and "fsck" in failure.hint
    failure = write_errors.failed(
        "/a", "/", OSError(errno.EPERM, "Operation not permitted"), FreeSpace(0), FreeSpace(0)
    )
    assert "lsattr" in failure.hint and "fsck" not in failure.hint
