"""A Windows guest is repaired on its disk: readers of other authors find what the report says, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from hyper2kvmd.booting import decide_firmware
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import GuestDisks
from hyper2kvmd.guest.mounts.access import default_helper, open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import SourceNic
from hyper2kvmd.stages.repair import repair_disks
from tests.guests.altered import image_of
from tests.guests.windows import states
from tests.guests.windows.adapters import DHCP, STATIC
from tests.guests.windows.disk import WindowsDisk
from tests.guests.windows.files import CONFIG
from tests.guests.windows.machine import Windows
from tests.guests.windows.releases import RELEASES, SERVER_2012_R2, SERVER_2022, WINDOWS_7, WINDOWS_11, Release
from tests.support import ntfs_judges
from tests.support.disks import sh
from tests.support.guest_on_disk import migration, quiet_context
from tests.support.hive_judges import REG_DWORD, Hive, values_of
from tests.support.host import as_qcow2
from tests.support.windows_beds import Beds

NICS = (SourceNic(mac="00:50:56:a1:b2:c3"), SourceNic(mac="00:0c:29:f3:ff:de"))
CURRENT = "ControlSet001"
FIRST_BOOT = f"{CURRENT}\\Services\\hyper2kvm-first-boot"


def repaired(image: Image, folder: Path, virtio_win: Path | None = None, **keys: object) -> Guest:
    asked = migration(**keys)
    with open_image(image, Helper(default_helper()), folder) as access:
        firmware, _ = decide_firmware(asked.uefi, None, image.layout)
        disks = GuestDisks(access, image.layout, asked, quiet_context(), firmware, NICS, virtio_win=virtio_win)
        return repair_disks(disks)


def files_of(disk: WindowsDisk) -> ntfs_judges.Files:
    return ntfs_judges.files_of(disk.path, disk.system.offset, disk.system.length)


def hive(disk: WindowsDisk, name: str, folder: Path) -> Hive:
    """As four readers of other authors find it."""
    path = folder / f"read-{name}"
    path.write_bytes(ntfs_judges.read(disk.path, disk.system.offset, disk.system.length, f"{CONFIG}/{name}"))
    return values_of(path)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def number(found: Hive, key: str, name: str) -> int:
    kind, data = found[key][name]
    assert kind == REG_DWORD
    return int.from_bytes(data, "little")


def codes(found: Guest) -> set[str]:
    return {concern.code for concern in found.concerns}


@pytest.mark.parametrize(
    ("release", "firmware"),
    [(SERVER_2022, "uefi"), (SERVER_2012_R2, "bios"), (WINDOWS_11, "uefi"), (WINDOWS_7, "bios")],
    ids=lambda value: value.name if isinstance(value, Release) else value,
)
def test_all_readers_find_the_repairs(
    windows_beds: Beds, virtio_win: Path, service_folder: Path, release: Release, firmware: str
) -> None:
    windows = Windows(release=release, firmware="uefi" if firmware == "uefi" else "bios", san_policy=3)
    disk = windows_beds.disk(service_folder / "disk.raw", windows)
    before = files_of(disk)
    found = repaired(image_of(disk.path), service_folder, virtio_win, win_disk="virtio")  # old ones are test-signed

    after = files_of(disk)
    ntfs_judges.check(disk.path, disk.system.offset, disk.system.length)
    config = {f"{CONFIG}/{name}" for name in ("SYSTEM", "SOFTWARE", "DRIVERS")}
    assert {path for path, entry in before.items() if entry.kind == "file" and after[path] != entry} <= config
    assert f"{CONFIG}/hyper2kvm-first-boot.ps1" in after
    system = hive(disk, "SYSTEM", service_folder)
    for driver in ("viostor", "vioscsi"):
        assert number(system, f"{CURRENT}\\Services\\{driver}", "Start") == 0
        _, image = system[f"{CURRENT}\\Services\\{driver}"]["ImagePath"]
        assert f"Windows/{image.decode('utf-16-le').rstrip(chr(0))}".replace("\\", "/") in after
    assert number(system, f"{CURRENT}\\Services\\partmgr\\Parameters", "SanPolicy") == 1
    assert not [key for key in system if key.startswith(CURRENT) and "stor" in key and "StartOverride" in key]
    kept = system[f"{FIRST_BOOT}\\Parameters\\Network\\{STATIC.mac}\\Tcpip"]
    assert kept["IPAddress"] == (7, "192.0.2.21\0\0".encode("utf-16-le"))
    hive(disk, "SOFTWARE", service_folder)
    if release.has_driver_database:
        assert "DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1042" in system
        drivers = hive(disk, "DRIVERS", service_folder)
        assert "DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1041" in drivers
    else:
        assert f"{CURRENT}\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_1042" in system

    if firmware == "uefi":
        sh("mdir", "-i", f"{disk.path}@@{disk.loader.offset}", "::/EFI/Boot/bootx64.efi")
    assert (found.family, found.hostname) == ("windows", windows.computer)
    assert (found.capabilities.disk_bus, found.capabilities.nic_model) == ("virtio", "virtio")
    assert [nic.name for nic in found.nics] == [STATIC.name, DHCP.name]
    assert found.windows is not None and found.windows.build == release.build
    once = digest(disk.path)
    again = repaired(image_of(disk.path), service_folder, virtio_win, win_disk="virtio")
    assert again.changes == ()
    assert digest(disk.path) == once


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_without_drivers_each_release_gets_what_it_knows(
    windows_beds: Beds, service_folder: Path, release: Release
) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(release=release))
    found = repaired(image_of(disk.path), service_folder)
    assert (found.capabilities.disk_bus, found.capabilities.nic_model) == ("sata", "e1000e")
    assert "windows-no-virtio" in codes(found)
    system = hive(disk, "SYSTEM", service_folder)
    name = "storahci" if release.has_driver_database else "msahci"
    assert number(system, f"{CURRENT}\\Services\\{name}", "Start") == 0


def test_a_dry_run_says_the_same_and_writes_nothing(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw")
    before = digest(disk.path)
    shown = repaired(image_of(disk.path), service_folder, virtio_win, dry_run=True)
    assert digest(disk.path) == before
    assert repaired(image_of(disk.path), service_folder, virtio_win).changes == shown.changes != ()


def test_a_qcow2_image_is_repaired_as_a_raw_one(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw")
    qcow2 = as_qcow2(image_of(disk.path))
    repaired(qcow2, service_folder, virtio_win)
    repaired(image_of(disk.path), service_folder, virtio_win)
    again = service_folder / "again.raw"
    sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2.disks[0].path, again)
    assert ntfs_judges.files_of(again, disk.system.offset, disk.system.length) == files_of(disk)


def test_what_windows_had_only_logged_is_kept(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    step = '[\\ControlSet001\\Services\\Logged]\n"Start"=dword:00000003\n'
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(), states.dirty_registry(step))
    repaired(image_of(disk.path), service_folder, virtio_win)
    system = hive(disk, "SYSTEM", service_folder)
    assert number(system, f"{CURRENT}\\Services\\Logged", "Start") == 3
    assert number(system, f"{CURRENT}\\Services\\viostor", "Start") == 0


def refused(disks: Sequence[WindowsDisk], folder: Path) -> MigrationFailed:
    before = [digest(disk.path) for disk in disks]
    with pytest.raises(MigrationFailed) as caught:
        repaired(image_of(*(disk.path for disk in disks)), folder)
    assert [digest(disk.path) for disk in disks] == before
    return caught.value


def test_one_of_several_windows_has_to_be_chosen(windows_beds: Beds, service_folder: Path) -> None:
    disks = [windows_beds.disk(service_folder / f"{name}.raw") for name in ("one", "two")]
    failure = refused(disks, service_folder)
    assert failure.code == "windows-ambiguous"
    assert "root: " in (failure.hint or "")
    image = image_of(*(disk.path for disk in disks))
    windows = [volume for volume in image.layout.volumes if volume.content == "ntfs" and volume.length > 100 << 20]
    found = repaired(image, service_folder, root=windows[1].name)
    assert found.root.startswith(windows[1].name) and found.changes != ()


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (states.encrypted, "windows-bitlocker"),
        (states.hibernated, "guest-hibernated"),
        (states.to_be_checked, "windows-unclean"),
        (states.dynamic, "windows-dynamic-disk"),
    ],
)
def test_a_windows_that_cannot_be_changed_safely_is_refused(
    windows_beds: Beds, service_folder: Path, state: states.Make, code: str
) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(), state)
    assert refused([disk], service_folder).code == code


def test_a_boot_manager_without_windows_is_refused(windows_beds: Beds, service_folder: Path) -> None:
    """The machine has another disk."""
    disk = windows_beds.disk(service_folder / "disk.raw")
    disk.change(lambda files: (files / CONFIG / "SYSTEM").unlink())
    assert refused([disk], service_folder).code == "windows-root-missing"
