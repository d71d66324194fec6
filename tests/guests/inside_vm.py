"""Guests on arrays and in containers, migrated. Run inside the virtual machine of test_in_vm.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests import luks
from tests.guests.catalogue import NESTED
from tests.guests.guest import Guest
from tests.guests.migration import as_vmdk, changed_nothing, changed_what_it_must, images, migrated
from tests.support.disks import sh
from tests.support.host import USER

ROOTS = {"luks": "partition 2, decrypted (ext4", "raid-lvm": "vg0/root (ext4"}


@pytest.fixture(scope="module")
def exchange() -> Iterator[Path]:
    """The disk that the outer machine shares: a folder of VMDKs for each guest."""
    folder = Path("/mnt")
    sh("mount", "/dev/vdb", folder)
    yield folder
    sh("umount", folder)


@pytest.mark.parametrize("guest", NESTED, ids=[guest.name for guest in NESTED])
def test_it_is_repaired_and_a_second_repair_finds_nothing_to_do(
    guest: Guest, exchange: Path, installed_helper: tuple[str, ...]
) -> None:
    folder = exchange / guest.name
    shutil.chown(folder, USER, USER)
    keys: dict[str, object] = {"verify": "check"}
    if guest is luks.GUEST:
        keys["luks_keyfile"] = folder / "key"
        (folder / "key").write_text(luks.KEY)
    report = migrated(sorted(folder.glob("*.vmdk")), "first", **keys)
    changed_what_it_must(report, guest)
    assert report["guest"]["root"].startswith(ROOTS[guest.name])
    again = [as_vmdk(image, "qcow2", image.with_suffix(".vmdk")) for image in images(report)]
    changed_nothing(migrated(again, "second", **keys))
