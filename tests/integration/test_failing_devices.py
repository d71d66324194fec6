"""Devices below a guest's file system that fail: the job is tried again, and nothing is blamed on the guest."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.linux.compose import Composition
from hyper2kvmd.guest.linux.root_search import find_root
from hyper2kvmd.guest.mounts.access import default_helper, io_error
from hyper2kvmd.model.disks import Image, Volume
from hyper2kvmd.model.jobs import Stage
from tests.support.access import client
from tests.support.attempts import Attempts
from tests.support.disks import sh
from tests.support.guest_on_disk import FolderAccess, layout, partition, put
from tests.support.host import as_qcow2, give, make_disk
from tests.support.host import installed_helper as installed_helper
from tests.support.kernel import until_clean
from tests.support.small_guest import copy_of, small_guest

CLUSTER = 64 << 10
ENTRY_BYTES = 8
OFFSET = 0x00FF_FFFF_FFFF_FE00
BLOCK = 1024


def break_cluster(qcow2: Path, offset: int) -> None:
    """QEMU gives EIO for the bytes at that offset of the disk: its table says a place that is none."""
    with qcow2.open("r+b") as file:
        first = _number(file.seek(40) and file.read(ENTRY_BYTES))
        table = _number(file.seek(first) and file.read(ENTRY_BYTES)) & OFFSET
        place = table + offset // CLUSTER * ENTRY_BYTES
        entry = _number(file.seek(place) and file.read(ENTRY_BYTES))
        assert entry & OFFSET, "the cluster is stored"
        file.seek(place)
        file.write(struct.pack(">Q", entry + 512))


def _number(data: bytes | int) -> int:
    assert isinstance(data, bytes)
    return int(struct.unpack(">Q", data)[0])


def test_a_device_that_fails_at_the_mount(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    """The exporter lives, and gives an error for the superblock."""
    image = as_qcow2(make_disk(service_folder / "disk.raw", ("ext4",), table="dos"))
    break_cluster(image.disks[0].path, image.layout.volumes[0].segments[0].offset)
    status, said = client("edit", give(image), installed_helper)
    assert (status, said["code"], said["kind"]) == (1, "guest-io-error", Kind.RETRY), said
    assert until_clean()


def test_a_device_that_fails_while_files_are_read(tmp_path: Path) -> None:
    job, guest = Attempts(tmp_path), small_guest(tmp_path / "guest.raw")
    copy_of(guest, job.source)
    asked = job.order.migration.with_changes(out_format="qcow2")
    job.order = job.order.with_changes(helper=default_helper(), migration=asked)

    def break_file(stage: Stage) -> None:
        if stage is Stage.CONVERT:
            break_cluster(job.folder / "disk1.qcow2", _place_of(guest, "/etc/fstab"))

    assert job.run(break_file) == ([Stage.PLAN, Stage.CONVERT, Stage.REPAIR], "guest-io-error")


def _place_of(guest: Image, path: str) -> int:
    """The offset of a file's first block on the disk."""
    start = guest.layout.volumes[0].segments[0].offset
    block = re.search(r"\d+", sh("debugfs", "-R", f"blocks {path}", f"{guest.disks[0].path}?offset={start}"))
    assert block is not None
    return start + int(block[0]) * BLOCK


class Failing(FolderAccess):
    """The device of one volume fails."""

    def mount(self, volume: Volume, *, read_only: bool = False):  # type: ignore[no-untyped-def]
        if volume.name == "partition 2":
            raise io_error(f"{volume.name} cannot be mounted: Input/output error")
        return super().mount(volume, read_only=read_only)


def test_a_volume_whose_device_fails_is_not_left_out(tmp_path: Path) -> None:
    """Its files would stay without a repair, and the job would succeed."""
    put(tmp_path, "etc/os-release", "ID=debian\n")
    put(tmp_path, "etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n/dev/sda2 /boot/efi ext4 defaults 0 2\n")
    (tmp_path / "usr").mkdir()
    disks = layout(partition(1), partition(2))
    root = find_root(FolderAccess({"partition 1": tmp_path, "partition 2": tmp_path / "usr"}), disks)
    assert root is not None
    composition = Composition(Failing({"partition 1": tmp_path}), disks, root, read_only=True)
    with pytest.raises(MigrationFailed) as caught, composition.mounted():
        pass
    assert caught.value.kind is Kind.RETRY
