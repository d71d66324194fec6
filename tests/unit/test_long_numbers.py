"""Numbers of a guest with more digits than Python converts (4,300)."""

from __future__ import annotations

import pytest

from hyper2kvmd.guest.linux.boot_menu import default_entry
from hyper2kvmd.guest.linux.disk_names import DiskName, parse
from hyper2kvmd.guest.linux.disk_places import place_of
from hyper2kvmd.model.machine import DiskAddress, DiskIdentity

LONG = "1" * 5000
PATHS = "/dev/disk/by-path/pci-0000:03:00.0-"


@pytest.mark.parametrize(
    "spec",
    [
        "/dev/sda{0}",
        "/dev/nvme{0}n1",
        "/dev/nvme0n{0}",
        "/dev/nvme0n1p{0}",
        "/dev/mmcblk{0}",
        "/dev/mmcblk0p{0}",
        "/dev/cciss/c0d{0}",
        "/dev/loop0p{0}",
        "/dev/emcpowera{0}",
        "/dev/mapper/mpatha{0}",
        "/dev/mapper/mpath1p{0}",
        "/dev/mapper/data-part{0}",
        "/dev/disk/by-id/dm-uuid-part{0}-mpath-36000",
        "/dev/disk/by-id/scsi-36000-part{0}",
        PATHS + "scsi-0:0:{0}:0",
        PATHS + "nvme-{0}",
        PATHS + "ata-{0}.1",
    ],
)
def test_of_a_disk(spec: str) -> None:
    found = parse(spec.format(LONG), {"data": "36000"})
    assert found is None or (found.number, found.index) in ((None, None), (None, 0))


@pytest.mark.parametrize("name", [f"nvme{LONG}n1", f"nvme0n{LONG}"])
def test_of_a_place(name: str) -> None:
    identity = DiskIdentity(address=DiskAddress(bus="nvme", controller=0, unit=0))
    assert not place_of(DiskName("kernel", name), identity, [identity])


@pytest.mark.parametrize(
    "text",
    [f'set default="{LONG}"\nmenuentry "a" {{\n}}\n', f"default {LONG}\ntitle a\n"],
)
def test_of_a_menu_entry(text: str) -> None:
    assert default_entry(text) == ""
