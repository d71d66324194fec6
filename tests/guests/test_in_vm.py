"""Guests whose roots only md and device-mapper reach: repaired in a machine whose kernel has both, booted out here.

That machine is emulated, and a boot inside it would be emulated twice. It is the machine of `tests/system`; the test
lies here since what it shows is that guests boot, as all of this folder does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.model.disks import Segment
from tests.guests.altered import boot_it
from tests.guests.catalogue import NESTED
from tests.guests.migration import exported
from tests.support.disks import empty_disk, sh
from tests.support.host import looped
from tests.support.published import published
from tests.system.machine import checked_inside

EXCHANGE = 24 << 10
"""MiB of the disk on which sources go in and images come out, most of it never written."""


@pytest.mark.slow
def test_guests_on_arrays_and_in_containers_boot_on_virtio(
    guest_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    exchange = empty_disk(guest_folder / "exchange.raw", EXCHANGE)
    whole = Segment(offset=0, length=EXCHANGE << 20)
    sh("mkfs.ext4", "-q", "-F", exchange)
    with looped(exchange, whole) as files:
        for guest in NESTED:
            (files / guest.name).mkdir()
            exported(guest, files / guest.name)
    print(checked_inside("-s --durations=0 tests/guests/inside_vm.py", guest_folder, exchange))
    with looped(exchange, whole) as files:
        for guest in NESTED:
            booted = boot_it(published(files / guest.name / "first.report.json"))
            assert any("asked for a login" in line for line in booted.evidence)
            assert booted.failed_units == ()
