"""The first boot on KVM, compared with what the guest's own files say: a login is not all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.model.disks import Segment
from hyper2kvmd.volumes.layout import read_layout
from tests.guests import btrfs_subvolumes, cloud_init
from tests.guests.altered import HEALTHY, altered, boot_it
from tests.guests.guest import disk
from tests.guests.migration import as_vmdk, changed_what_it_must, exported, images, migrated
from tests.support.disks import FileReader, sh
from tests.support.host import looped


def test_a_guest_of_cloud_init_stays_the_instance_that_it_was(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    report = migrated(exported(cloud_init.GUEST, service_folder), "first", verify="boot")
    changed_what_it_must(report, cloud_init.GUEST)
    assert report["verdict"]["warnings"] == []
    assert any("as its own files say" in line for line in report["verdict"]["evidence"])


@pytest.mark.slow
def test_the_proof_names_what_is_not_as_the_files_say(guest_folder: Path) -> None:
    """Nothing of the guest reads this configuration, so its address does not come up."""
    booted = boot_it(altered(HEALTHY, guest_folder, _configured_for_another_manager))
    assert booted.differences == ("10.20.30.40 is not in force on ens192",)


def _configured_for_another_manager(root: Path) -> None:
    network = root / "etc/systemd/network/10.network"
    network.parent.mkdir(parents=True, exist_ok=True)
    network.write_text("[Match]\nName=ens192\n[Network]\nAddress=10.20.30.40/24\n")


@pytest.mark.slow
def test_a_read_only_btrfs_root_is_repaired_and_stays_read_only(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    raw = service_folder / "guest.raw"
    sh("cp", "--sparse=always", disk(btrfs_subvolumes.GUEST), raw)
    raw.chmod(0o600)
    with looped(raw, _root_of(raw)) as top:
        sh("btrfs", "property", "set", top / "@", "ro", "true")
    report = migrated([as_vmdk(raw, "raw", service_folder / "guest.vmdk")], "first", verify="check")
    changed_what_it_must(report, btrfs_subvolumes.GUEST)
    sh("qemu-img", "convert", "-O", "raw", images(report)[0], raw)
    with looped(raw, _root_of(raw)) as top:
        assert sh("btrfs", "property", "get", top / "@", "ro").strip() == "ro=true"
        assert "UUID=" in (top / "@/etc/fstab").read_text()


def _root_of(raw: Path) -> Segment:
    reader = FileReader(raw)
    try:
        (root,) = (volume for volume in read_layout([reader]).volumes if volume.content == "btrfs")
    finally:
        reader.close()
    return root.segments[0]
