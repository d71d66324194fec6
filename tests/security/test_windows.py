"""Attacks of a Windows guest on the repair of its own disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import GuestDisks
from hyper2kvmd.guest.files.ntfs_root import ntfs_session
from hyper2kvmd.guest.mounts.access import Access, default_helper, open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.guest.windows.family import Windows
from hyper2kvmd.guest.windows.writing import write_volume
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.volumes.fat import Blocks
from hyper2kvmd.volumes.ntfs.changes import ChangedRun, VolumeChanges
from tests.guests.altered import image_of
from tests.guests.windows.machine import Windows as WindowsBed
from tests.support.guest_on_disk import migration, quiet_context
from tests.support.windows_beds import Beds
from tests.support.windows_beds import windows_beds as windows_beds

DRIVER, DATA = "Windows/System32/drivers/new.sys", bytes(range(1, 256)) * 100


def other_content(run: ChangedRun) -> ChangedRun:
    """The file's bytes, changed by a process that has been taken over."""
    return replace(run, data=run.data.replace(DATA[1000:1010], b"overwrites"))


def lies(changed: VolumeChanges, kind: str) -> VolumeChanges:
    if kind == "another content":
        return replace(changed, runs=tuple(map(other_content, changed.runs)))
    if kind == "a part left out":
        return replace(changed, runs=tuple(run for run in changed.runs if DATA[1000:1010] not in run.data))
    return replace(changed, runs=changed.runs[-1:])


@pytest.mark.parametrize("kind", ["another content", "a part left out", "almost nothing"])
def test_a_process_that_lies_about_what_it_changes(windows_beds: Beds, service_folder: Path, kind: str) -> None:
    """It was taken over by the volume that it reads. The image stays as it is."""
    disk = windows_beds.disk(service_folder / "disk.raw")
    before = hashlib.sha256(disk.path.read_bytes()).digest()
    image = image_of(disk.path)
    volume = next(one for one in image.layout.volumes if one.length == disk.system.length)
    with open_image(image, Helper(default_helper()), service_folder) as access:
        with ntfs_session(access, volume) as session:
            session.write(DRIVER, DATA)
            changed = session.changed_blocks()
        assert lies(changed, kind) != changed
        with pytest.raises(MigrationFailed) as caught:
            write_volume(access, volume, lies(changed, kind), {f"/{DRIVER}": DATA})
        assert caught.value.code in ("windows-write-unverified", "ntfs-damaged")
        assert hashlib.sha256(disk.path.read_bytes()).digest() == before
        write_volume(access, volume, changed, {f"/{DRIVER}": DATA})
    assert hashlib.sha256(disk.path.read_bytes()).digest() != before


@dataclass(frozen=True)
class Unwritable:
    """Access to an image, in which one volume cannot be written."""

    access: Access
    volume: Volume

    @property
    def replayed(self) -> tuple[Volume, ...]:
        return self.access.replayed

    def mount(self, volume: Volume, *, read_only: bool = False) -> AbstractContextManager[int]:
        return self.access.mount(volume, read_only=read_only)

    @contextmanager
    def blocks(self, volume: Volume, *, read_only: bool = False) -> Iterator[Blocks]:
        if volume == self.volume and not read_only:
            raise MigrationFailed("image-write-failed", "a disk error", hint="Replace the disk")
        with self.access.blocks(volume, read_only=read_only) as blocks:
            yield blocks


def test_the_efi_partition_is_written_after_the_volume_of_windows(windows_beds: Beds, service_folder: Path) -> None:
    """If that one is not written, nothing is, also not the copy of the boot manager."""
    disk = windows_beds.disk(service_folder / "disk.raw", WindowsBed(firmware="uefi"))
    before = hashlib.sha256(disk.path.read_bytes()).digest()
    image = image_of(disk.path)
    volume = next(one for one in image.layout.volumes if one.length == disk.system.length)
    with open_image(image, Helper(default_helper()), service_folder) as access:
        for opened, codes in ((Unwritable(access, volume), ["image-write-failed"]), (access, [])):
            disks = GuestDisks(opened, image.layout, migration(), quiet_context(), "uefi")
            found = Windows().find(disks)
            assert found is not None
            failed = []
            try:
                guest = found.repair()
            except MigrationFailed as failure:
                failed.append(failure.code)
                assert hashlib.sha256(disk.path.read_bytes()).digest() == before
            assert failed == codes
    assert any("EFI system partition" in change.path for change in guest.changes)
