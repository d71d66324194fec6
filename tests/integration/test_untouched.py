"""What needs no edit comes out as it was: source and image are equal, byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.guest.mounts.access import default_helper, open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.model.disks import Image
from hyper2kvmd.stages.repair import repair_disks
from tests.guests import debian12, uefi_grub
from tests.guests.altered import image_of
from tests.guests.guest import Guest, disk
from tests.guests.migration import as_vmdk, images, migrated
from tests.support.disks import sh
from tests.support.guest_on_disk import guest_disks, migration
from tests.support.host import as_qcow2, looped, make_disk
from tests.support.journals import WRITTEN, copied_in_use
from tests.support.kernel import Kernel


def migrated_disk(raw: Path, **keys: object) -> tuple[Path, Any]:
    source = as_vmdk(raw, "raw", raw.with_suffix(".vmdk"))
    return source, migrated([source], "data01", verify="check", **keys)


@pytest.mark.parametrize("out_format", ["qcow2", "raw"])
def test_a_data_disk(installed_helper: tuple[str, ...], service_folder: Path, out_format: str) -> None:
    data = make_disk(service_folder / "data.raw", ("ext4", "ext2", "xfs", "btrfs"))
    source, report = migrated_disk(data.disks[0].path, out_format=out_format)
    (warning,) = report["guest"]["warnings"]
    assert warning.startswith("no operating system was found on this disk")
    (image,) = images(report)
    sh("qemu-img", "compare", "-f", "vmdk", "-F", out_format, source, image)
    assert Kernel.now().clean


def repaired(image: Image, folder: Path) -> int:
    """How many changes there were."""
    with open_image(image, Helper(default_helper()), folder) as opened:
        guest = repair_disks(guest_disks(opened, image.layout, migration()))
    assert guest.warnings == ()
    return len(guest.changes)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize(
    "guest",
    [debian12.Recipe().guest, debian12.Recipe(lvm=True).guest, uefi_grub.GUESTS["uefi-grub"]],
    ids=lambda guest: str(guest.name),
)
def test_a_guest_that_is_repaired_already(guest: Guest, form: str, guest_folder: Path) -> None:
    raw = guest_folder / "guest.raw"
    sh("cp", "--sparse=always", "--reflink=auto", disk(guest), raw)
    image = image_of(raw) if form == "raw" else as_qcow2(image_of(raw))
    assert repaired(image, guest_folder) > 0
    before = digest(image)
    assert repaired(image, guest_folder) == 0
    assert digest(image) == before
    assert Kernel.now().clean


def digest(image: Image) -> str:
    with image.disks[0].path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("content", ["ext4", "xfs", "btrfs"])
def test_a_dirty_journal_is_replayed_and_the_report_says_so(
    installed_helper: tuple[str, ...], service_folder: Path, content: str
) -> None:
    disk = make_disk(service_folder / "running.raw", (content, "ext4"))
    copied = copied_in_use(disk, service_folder / "data.raw")
    source, report = migrated_disk(copied.disks[0].path, out_format="raw")
    replayed, nothing_found = report["guest"]["warnings"]
    assert replayed.startswith(f"partition 1 ({content}, UUID ") and "its journal was replayed" in replayed
    assert nothing_found.startswith("no operating system was found on this disk")
    assert replayed.partition(" (")[2].rpartition(" [")[0] in (service_folder / "data01.report.md").read_text()

    (image,) = images(report)
    used, clean = disk.layout.volumes
    with copied.disks[0].path.open("rb") as before, image.open("rb") as after:
        for file in (before, after):
            file.seek(clean.segments[0].offset)
        assert before.read(clean.length) == after.read(clean.length)
    with looped(image, used.segments[0]) as root:
        assert (root / WRITTEN).read_text() == "by the guest\n"
    assert migrated([as_vmdk(image, "raw", source.with_suffix(".again.vmdk"))], "again")["guest"]["warnings"] == [
        nothing_found
    ]
