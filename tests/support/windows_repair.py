"""A Windows disk through the repair stage, and what judges of other authors find on it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from hyper2kvmd.guest.mounts.access import default_helper
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Firmware, Machine, Plan, SourceNic
from hyper2kvmd.model.orders import Order
from hyper2kvmd.stages.repair import repair
from tests.guests.altered import image_of
from tests.guests.windows.disk import WindowsDisk
from tests.guests.windows.files import CONFIG
from tests.support import ntfs_judges
from tests.support.benches import bench_for
from tests.support.disks import sh
from tests.support.hive_judges import Hive, values_of
from tests.support.host import as_qcow2

NICS = (
    SourceNic(mac="00:50:56:a1:b2:c3", network="VM Network"),
    SourceNic(mac="00:0c:29:f3:ff:de", network="VM Network"),
)
"""The cards of the machine whose adapters are in the registry."""


@dataclass(frozen=True)
class Judged:
    """A raw disk, as readers of other authors see it: they agree, or an assertion fails."""

    disk: WindowsDisk

    @property
    def place(self) -> tuple[Path, int, int]:
        return self.disk.path, self.disk.system.offset, self.disk.system.length

    @cached_property
    def files(self) -> ntfs_judges.Files:
        return ntfs_judges.files_of(*self.place)

    def read(self, path: str) -> bytes:
        return ntfs_judges.read(*self.place, path)

    def hive(self, name: str) -> Hive:
        path = self.disk.path.with_name(f"{self.disk.path.name}-{name}")
        path.write_bytes(self.read(f"{CONFIG}/{name}"))
        return values_of(path)


@dataclass(frozen=True)
class Repaired:
    guest: Guest
    image: Image
    before: WindowsDisk

    @cached_property
    def after(self) -> Judged:
        raw = self.before.path.with_name(f"{self.before.path.name}-after")
        sh("qemu-img", "convert", "-O", "raw", self.image.disks[0].path, raw)
        return Judged(replace(self.before, path=raw))


def repaired(disk: WindowsDisk, folder: Path, *, nics: tuple[SourceNic, ...] = NICS, **keys: object) -> Repaired:
    """The stage on a QCOW2 of the disk, with `keys` in the migration."""
    image = as_qcow2(image_of(disk.path))
    return Repaired(repair_image(image, folder, disk.windows.firmware, nics=nics, **keys), image, disk)


def repair_image(
    image: Image, folder: Path, firmware: Firmware, *, nics: tuple[SourceNic, ...] = NICS, **keys: object
) -> Guest:
    migration = Migration.model_validate({"vmdk": [one.path for one in image.disks], "vm_name": "win", **keys})
    plan = Plan(machine=Machine(disks=(), nics=nics), disks=(), layout=image.layout, firmware=firmware, needed_bytes=1)
    order = Order(job_id="1", migration=migration, conversion_dir=folder, output_dir=folder, helper=default_helper())
    with bench_for(order, folder) as bench:
        return repair(bench, plan, image)
