"""Guests as they leave VMware: migrated by the command line, booted on virtio, and repaired for good at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.guests import debian12, luks, lvm_xfs, several_kernels
from tests.guests.catalogue import BROKEN
from tests.guests.guest import Guest
from tests.guests.migration import as_vmdk, changed_nothing, changed_what_it_must, exported, images, migrated
from tests.support.disks import empty_disk, loop, sh

QUICK = ("lvm-xfs", "dracut")
"""A file system and an initramfs that no other test of `make test` boots. The rest are for `make test-long`."""


def cases() -> list[Any]:
    guests = (debian12.Recipe().guest, *BROKEN)
    return [pytest.param(one, id=one.name, marks=() if one.name in QUICK else pytest.mark.slow) for one in guests]


@pytest.mark.parametrize("guest", cases())
def test_it_boots_on_virtio_and_a_second_repair_finds_nothing_to_do(
    guest: Guest, service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    report = migrated(exported(guest, service_folder), "first", verify="boot")
    changed_what_it_must(report, guest)
    assert any("asked for a login" in line for line in report["verdict"]["evidence"])
    assert any(guest.says in line for line in report["verdict"]["console_tail"])

    again = [as_vmdk(image, "qcow2", image.with_suffix(".vmdk")) for image in images(report)]
    report = migrated(again, "second", verify="check")
    changed_nothing(report)
    for source, image in zip(again, images(report), strict=True):
        sh("qemu-img", "compare", "-f", "vmdk", "-F", "qcow2", source, image)


@pytest.mark.slow
def test_every_kernel_gets_virtio_not_only_the_one_that_boots(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    guest = migrated(exported(several_kernels.GUEST, service_folder), "first", verify="check")["guest"]
    assert len(guest["kernels"]) == 2
    mended = {change["path"] for change in guest["changes"] if "virtio_blk" in change["summary"]}
    assert mended == {f"/boot/initrd.img-{version}" for version in guest["kernels"]}


def test_a_volume_group_of_the_hosts_with_the_same_name_stays_as_it_was(
    service_folder: Path, installed_helper: tuple[str, ...], tmp_path: Path
) -> None:
    """Where device-mapper can activate volumes, the host would otherwise meet two groups of one name."""
    sources = exported(lvm_xfs.GUEST, service_folder)
    with loop(empty_disk(tmp_path / "host", 64), length=64 << 20) as device:
        here = ("--driverloaded", "n", "--config", "backup { backup=0 archive=0 }", "--devices", device)
        sh("vgcreate", *here, lvm_xfs.GROUP, device)
        shown = ("-o", "vg_name,vg_uuid,vg_seqno,vg_size,pv_name,pv_uuid")
        before = sh("vgs", *here, *shown)
        guest = migrated(sources, "first", verify="check")["guest"]
        assert sh("vgs", *here, *shown) == before
    assert guest["root"].startswith(f"{lvm_xfs.GROUP}/root (xfs")


@pytest.mark.slow
def test_without_its_key_what_lies_outside_a_container_is_done_and_the_rest_is_told(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    """It boots all the same, having had everything inside: the report cannot know."""
    report = migrated(exported(luks.HEALTHY, service_folder), "first", verify="boot")
    assert [change["path"] for change in report["guest"]["changes"]] == ["/boot/grub/device.map"]
    (warning,) = report["guest"]["warnings"]
    assert warning.startswith("partition 2, decrypted: it is encrypted, and no key was given; there is no Linux root")
    assert warning in (service_folder / "first.report.md").read_text()
    assert any("asked for a login" in line for line in report["verdict"]["evidence"])
    assert any("a serial console was added" in line and "grub.cfg" in line for line in report["verdict"]["evidence"])
