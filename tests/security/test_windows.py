"""Attacks of a Windows guest on the repair of its own disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import GuestDisks
from hyper2kvmd.guest.files.ntfs_root import ntfs_session
from hyper2kvmd.guest.mounts.access import default_helper, open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.guest.windows.writing import write_volume
from hyper2kvmd.volumes.ntfs.journal import ChangedRun, ChangeJournal
from tests.guests.altered import image_of
from tests.support.guest_on_disk import migration, quiet_context
from tests.support.windows_beds import Beds
from tests.support.windows_beds import windows_beds as windows_beds

DRIVER, DATA = "Windows/System32/drivers/new.sys", bytes(range(1, 256)) * 100


def other_content(run: ChangedRun) -> ChangedRun:
    """The file's bytes, changed by a process that has been taken over."""
    return replace(run, data=run.data.replace(DATA[1000:1010], b"overwrites"))


def lies(journal: ChangeJournal, kind: str) -> ChangeJournal:
    if kind == "another content":
        return replace(journal, runs=tuple(map(other_content, journal.runs)))
    if kind == "a part left out":
        return replace(journal, runs=tuple(run for run in journal.runs if DATA[1000:1010] not in run.data))
    return replace(journal, runs=journal.runs[-1:])


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
            journal = session.journal()
        disks = GuestDisks(access, image.layout, migration(), quiet_context(), "bios", folder=service_folder)
        assert lies(journal, kind) != journal
        with pytest.raises(MigrationFailed) as caught:
            write_volume(disks, volume, lies(journal, kind), {f"/{DRIVER}": DATA})
        assert caught.value.code in ("windows-write-unverified", "ntfs-damaged")
        assert hashlib.sha256(disk.path.read_bytes()).digest() == before
        write_volume(disks, volume, journal, {f"/{DRIVER}": DATA})
    assert hashlib.sha256(disk.path.read_bytes()).digest() != before
