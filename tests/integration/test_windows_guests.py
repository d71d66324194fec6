"""What the repair of a Windows guest depends on: its release, control set, clock, network, and state of its disk."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.guest import Guest
from tests.guests.altered import image_of
from tests.guests.windows import states
from tests.guests.windows.adapters import DHCP, STATIC
from tests.guests.windows.disk import WindowsDisk
from tests.guests.windows.files import CONFIG, EFI_LOADER, SYSTEM32, system_files
from tests.guests.windows.machine import Windows
from tests.guests.windows.registry_text import dword, render
from tests.guests.windows.releases import (
    RELEASES,
    SERVER_2012_R2,
    SERVER_2016,
    SERVER_2022,
    SERVER_2025,
    WINDOWS_7,
    WINDOWS_10,
    WINDOWS_11,
    Release,
)
from tests.support import ntfs_judges
from tests.support.disks import sh
from tests.support.hive_judges import reg_diff
from tests.support.windows_beds import Beds
from tests.support.windows_repair import Judged, Repaired, repair_image, repaired

GOLDEN = Path(__file__).parents[1] / "golden-windows"
STORE_HASH = re.compile(r"(?<=\.inf_amd64_)[0-9a-f]{16}|(?<=\.inf_x86_)[0-9a-f]{16}")
"""A driver's folder has a hash of its files in its name; test signatures are new each time."""
PROTECTED = f"{SYSTEM32}/drivers/disk.sys"
HIVES = tuple(f"{CONFIG}/{name}" for name in ("SYSTEM", "SOFTWARE", "DRIVERS"))


def codes(guest: Guest) -> set[str]:
    return {concern.code for concern in guest.concerns}


def services(found: Repaired, number: int = 1) -> set[str]:
    """The names of those with keys in a control set."""
    prefix = f"ControlSet00{number}\\Services\\"
    return {key.removeprefix(prefix) for key in found.after.hive("SYSTEM") if key.startswith(prefix)}


def number_of(found: Repaired, key: str, name: str) -> int:
    return int.from_bytes(found.after.hive("SYSTEM")[key][name][1], "little")


# ---------------------------------------------------------------- drivers


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_each_release_gets_the_drivers_of_its_own_folder(
    windows_beds: Beds, virtio_win: Path, service_folder: Path, release: Release
) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(release=release))
    found = repaired(disk, service_folder, virtio_win=virtio_win, win_disk="virtio")  # old ones are test-signed
    facts = found.guest.windows
    assert facts is not None
    assert (facts.build, facts.server, facts.edition) == (release.build, release.is_server, release.edition)
    digests = {file.name: file.sha256 for driver in facts.drivers for file in driver.files}
    present = {entry.digest for entry in found.after.files.values()}
    for driver in ("viostor", "vioscsi", "NetKVM", "Balloon", "vioserial"):
        name = {"NetKVM": "netkvm", "Balloon": "balloon", "vioserial": "vioser"}.get(driver, driver)
        path = f"/{driver}/{release.folder}/amd64/{name}.inf"
        expected = sha256(extracted(virtio_win, path)).hexdigest()
        assert digests[f"{name}.inf"] == expected
        assert expected in present
    for path, data in system_files(disk.windows).items():
        assert found.after.files[path] == ntfs_judges.as_entry(data), "a file of the guest has changed"


@pytest.mark.parametrize(("asked", "bus"), [("auto", "sata"), ("sata", "sata"), ("scsi", "scsi")])
def test_drivers_that_windows_would_not_load_are_used_only_if_asked_for(
    windows_beds: Beds, virtio_win: Path, service_folder: Path, asked: str, bus: str
) -> None:
    """A driver with a test signature that starts at boot stops it."""
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(release=SERVER_2012_R2))
    found = repaired(disk, service_folder, virtio_win=virtio_win, win_disk=asked)
    capabilities = found.guest.capabilities
    assert (capabilities.disk_bus, capabilities.nic_model) == (bus, "virtio" if bus == "scsi" else "e1000e")
    assert ("viostor" in services(found)) == (bus == "scsi")
    assert ("windows-driver-refused" in codes(found.guest)) == (bus == "sata")
    assert ("driver-signature-limited" in codes(found.guest)) == (bus == "scsi")


def extracted(iso: Path, path: str) -> bytes:
    return subprocess.run(["isoinfo", "-J", "-i", iso, "-x", path], capture_output=True, check=True).stdout


@dataclass(frozen=True)
class Golden:
    """What the repair changes in the registry of a Windows, as a file of GOLDEN has it."""

    name: str
    windows: Windows
    drivers: Literal["full", "minimal"] = "full"


GOLDENS = (
    Golden("2022-uefi", Windows(SERVER_2022, "uefi", san_policy=3)),
    Golden("2022-uefi-minimal", Windows(SERVER_2022, "uefi", san_policy=3), "minimal"),
    Golden("11-uefi", Windows(WINDOWS_11, "uefi", san_policy=3)),
    Golden("11-uefi-minimal", Windows(WINDOWS_11, "uefi", san_policy=3), "minimal"),
    Golden("10-bios", Windows(WINDOWS_10, "bios", san_policy=3)),
    Golden("7-bios", Windows(WINDOWS_7, "bios", san_policy=3)),
)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
def test_registry_changes_are_these_and_no_others(
    windows_beds: Beds, virtio_win: Path, service_folder: Path, golden: Golden
) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", golden.windows)
    before = Judged(disk)
    found = repaired(disk, service_folder, virtio_win=virtio_win, win_drivers=golden.drivers, win_disk="virtio")
    hives = ("SYSTEM", "SOFTWARE", *(("DRIVERS",) if golden.windows.release.has_driver_database else ()))
    texts = [f"; {name}\n{reg_diff(before.hive(name), found.after.hive(name))}" for name in hives]
    text = STORE_HASH.sub("0123456789abcdef", "\n".join(texts))
    assert text == (GOLDEN / f"{golden.name}.reg").read_text()
    for driver in ("viostor", "vioscsi"):
        _, path = found.after.hive("SYSTEM")[f"ControlSet001\\Services\\{driver}"]["ImagePath"]
        assert f"Windows/{path.decode('utf-16-le').rstrip(chr(0))}".replace("\\", "/") in found.after.files


def test_new_files_are_protected_as_their_neighbours(
    windows_beds: Beds, virtio_win: Path, service_folder: Path
) -> None:
    """Without that, everybody could replace a driver."""
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(release=SERVER_2016))
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    before, after = Judged(disk).files, found.after.files
    numbers = ntfs_judges.security_ids(*found.after.place)
    new = sorted(path for path in after if path not in before and after[path].kind == "file")
    assert len(new) > 20
    allowed = {numbers[path] for path in (PROTECTED, f"{SYSTEM32}/drivers", *HIVES)}
    assert {path: numbers[path] for path in new if numbers[path] not in allowed} == {}
    assert numbers[f"{SYSTEM32}/drivers/viostor.sys"] == numbers[PROTECTED]
    assert [numbers[path] for path in HIVES] == [ntfs_judges.security_ids(*Judged(disk).place)[path] for path in HIVES]


def test_windows_of_32_bits_gets_its_own_drivers(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(release=WINDOWS_10, architecture="x86"))
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    assert {"windows-best-effort"} <= codes(found.guest)
    driver = extracted(virtio_win, "/viostor/w10/x86/viostor.sys")
    assert found.after.files[f"{SYSTEM32}/drivers/viostor.sys"] == ntfs_judges.as_entry(driver)


def test_compressed_folder_gets_readable_files(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(), states.with_compressed_inf, states.compacted)
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    before, after = Judged(disk).files, found.after.files
    assert [path for path in after.keys() - before.keys() if path.startswith("Windows/INF/oem")] != []
    assert {path for path in before if before[path] != after[path]} == set(HIVES)


# ---------------------------------------------------------------- what the registry says


def test_only_the_current_control_set_is_changed(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(control_set=2))
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    assert "viostor" in services(found, 2)
    before, after = Judged(disk).hive("SYSTEM"), found.after.hive("SYSTEM")
    assert {key: value for key, value in after.items() if key.startswith("ControlSet001")} == {
        key: value for key, value in before.items() if key.startswith("ControlSet001")
    }


@pytest.mark.parametrize(("kind", "rtc"), [("no", "localtime"), ("dword", "utc"), ("qword", "utc")])
def test_clock_is_as_windows_reads_it(windows_beds: Beds, service_folder: Path, kind: str, rtc: str) -> None:
    windows = {"no": Windows(), "dword": Windows(clock_in_utc="dword"), "qword": Windows(clock_in_utc="qword")}[kind]
    disk = windows_beds.disk(service_folder / "disk.raw", windows)
    assert repaired(disk, service_folder).guest.capabilities.rtc == rtc


@pytest.mark.parametrize("is_clustered", [False, True])
def test_disks_come_online_unless_a_cluster_has_them(
    windows_beds: Beds, service_folder: Path, *, is_clustered: bool
) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(san_policy=2, is_clustered=is_clustered))
    found = repaired(disk, service_folder)
    policy = number_of(found, "ControlSet001\\Services\\partmgr\\Parameters", "SanPolicy")
    assert policy == (2 if is_clustered else 1)
    assert ("windows-cluster" in codes(found.guest)) == is_clustered


def test_drivers_of_vmware_disks_stay(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    """Windows would not start on VMware again, and some not at all."""
    disk = windows_beds.disk(service_folder / "disk.raw")
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    starts = {
        name: number_of(found, f"ControlSet001\\Services\\{name}", "Start")
        for name in ("pvscsi", "LSI_SAS", "vmci", "vmxnet3ndis6", "VMTools", "VGAuthService", "vmvss")
    }
    assert starts == {
        "pvscsi": 0,
        "LSI_SAS": 0,
        "vmci": 0,
        "vmxnet3ndis6": 3,
        "VMTools": 4,
        "VGAuthService": 4,
        "vmvss": 4,
    }


def test_dhcp_everywhere_needs_no_first_boot(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(adapters=(DHCP,)))
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    assert found.guest.windows is not None and found.guest.windows.first_boot == ()
    assert [name for name in services(found) if "hyper2kvm" in name] == []
    assert [path for path in found.after.files if "hyper2kvm" in path] == []


def test_static_address_waits_for_the_card_with_its_mac(
    windows_beds: Beds, virtio_win: Path, service_folder: Path
) -> None:
    """Two adapters with addresses: each goes to the card that has its MAC address."""
    other = replace(DHCP, address=replace(STATIC.address, address="198.51.100.9"), servers=())  # type: ignore[type-var]
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(adapters=(STATIC, other)))
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    hive, cards = found.after.hive("SYSTEM"), "ControlSet001\\Services\\hyper2kvm-first-boot\\Parameters\\Network"
    addresses = {
        adapter.mac: hive[f"{cards}\\{adapter.mac}\\Tcpip"]["IPAddress"][1].decode("utf-16-le").rstrip("\0")
        for adapter in (STATIC, other)
    }
    assert addresses == {STATIC.mac: "192.0.2.21", DHCP.mac: "198.51.100.9"}


def test_uefi_finds_a_loader_in_the_fallback_folder(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(release=WINDOWS_11, firmware="uefi"))
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    where = f"{found.after.disk.path}@@{disk.loader.offset}"
    for name in (EFI_LOADER, "EFI/BOOT/BOOTX64.EFI"):
        sh("mcopy", "-i", where, f"::/{name}", service_folder / Path(name).name)
    one, other = (service_folder / Path(name).name for name in (EFI_LOADER, "EFI/BOOT/BOOTX64.EFI"))
    assert one.read_bytes() == other.read_bytes()


def test_logged_changes_of_all_kinds_of_releases(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    """Three log entries in two files: all are in the registry afterwards, with the drivers."""
    steps = [render([(f"ControlSet001\\Services\\Logged{number}", {"Start": dword(4)})]) for number in range(3)]
    windows = Windows(release=SERVER_2025)
    disk = windows_beds.disk(service_folder / "disk.raw", windows, states.dirty_registry(*steps))
    found = repaired(disk, service_folder, virtio_win=virtio_win)
    assert {"Logged0", "Logged1", "Logged2", "viostor", "vioscsi"} <= services(found)


# ---------------------------------------------------------------- refusals


def refused(disk: WindowsDisk, folder: Path, virtio_win: Path) -> MigrationFailed:
    """The failure, before a byte of the image is written."""
    image = image_of(disk.path)
    before = sha256(disk.path.read_bytes()).digest()
    with pytest.raises(MigrationFailed) as caught:
        repair_image(image, folder, disk.windows.firmware, virtio_win=virtio_win)
    assert sha256(disk.path.read_bytes()).digest() == before
    assert caught.value.hint
    return caught.value


def test_arm_is_refused_by_name(windows_beds: Beds, virtio_win: Path, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(release=WINDOWS_11, architecture="ARM64"))
    failure = refused(disk, service_folder, virtio_win)
    assert failure.code == "windows-unsupported" and "ARM64" in failure.message


def test_unfinished_write_of_an_old_registry_is_refused(
    windows_beds: Beds, virtio_win: Path, service_folder: Path
) -> None:
    step = render([("ControlSet001\\Services\\Logged", {"Start": dword(4)})])
    disk = windows_beds.disk(service_folder / "disk.raw", Windows(release=WINDOWS_7), states.dirty_registry(step))
    assert refused(disk, service_folder, virtio_win).code == "registry-log-unfit"
