"""The Windows disks that tests are made with: readers of other authors find on them what was to be there."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from dissect.ntfs.c_ntfs import ATTRIBUTE_TYPE_CODE

from tests.guests.windows import states
from tests.guests.windows.adapters import DHCP, STATIC
from tests.guests.windows.descriptors import OF_SYSTEM_FILES
from tests.guests.windows.disk import Extent, WindowsDisk
from tests.guests.windows.driver_disc import IN_DRIVER_STORE, SINCE_10, driver_folder
from tests.guests.windows.files import CONFIG, EFI_LOADER, EMPTY_FOLDERS, SYSTEM32, system_files
from tests.guests.windows.hives import make_hive, merge
from tests.guests.windows.machine import Firmware, Windows
from tests.guests.windows.registry_text import binary, dword, render
from tests.guests.windows.releases import RELEASES, SERVER_2022, WINDOWS_7, Release
from tests.support import ntfs_judges
from tests.support.disks import loop, sh
from tests.support.hive_judges import REG_DWORD, Hive, values_of
from tests.support.virtio_win import FILES
from tests.support.windows_beds import Beds

CMD = f"{SYSTEM32}/cmd.exe"
DIRTY, CLEAN = 1, 0


def at(extent: Extent) -> tuple[int, int]:
    return extent.offset, extent.length


def files_of(disk: WindowsDisk) -> ntfs_judges.Files:
    return ntfs_judges.files_of(disk.path, *at(disk.system))


def read(disk: WindowsDisk, path: str) -> bytes:
    return ntfs_judges.read(disk.path, *at(disk.system), path)


def hive(disk: WindowsDisk, name: str, folder: Path) -> Hive:
    path = folder / name
    path.write_bytes(read(disk, f"{CONFIG}/{name}"))
    return values_of(path)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_all_readers_agree_on_files_and_registry(
    windows_beds: Beds, tmp_path: Path, release: Release, firmware: Firmware
) -> None:
    windows = Windows(release=release, firmware=firmware)
    disk = windows_beds.disk(tmp_path / "disk.raw", windows)
    found = files_of(disk)
    for path, data in system_files(windows).items():
        assert found[path] == ntfs_judges.as_entry(data)
    assert all(found[folder].kind == "folder" for folder in EMPTY_FOLDERS)
    assert found["Documents and Settings"].kind == "link"
    assert len({found[CMD].digest, found[f"{SYSTEM32}/ntoskrnl.exe"].digest}) == 2

    software = hive(disk, "SOFTWARE", tmp_path)["Microsoft\\Windows NT\\CurrentVersion"]
    assert software["CurrentBuildNumber"] == (1, f"{release.build}\0".encode("utf-16-le"))
    system = hive(disk, "SYSTEM", tmp_path)
    assert ("DriverDatabase" in system) == release.has_driver_database
    interfaces = "ControlSet001\\Services\\Tcpip\\Parameters\\Interfaces"
    assert system[f"{interfaces}\\{STATIC.guid}"]["EnableDHCP"] == (REG_DWORD, bytes(4))
    assert system[f"{interfaces}\\{DHCP.guid}"]["EnableDHCP"] == (REG_DWORD, struct.pack("<I", 1))
    if release.has_driver_database:
        hive(disk, "DRIVERS", tmp_path)
    for name in ("SAM", "SECURITY", "DEFAULT", "COMPONENTS"):
        assert hive(disk, name, tmp_path) == {"": {}}


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_system_partition_has_a_boot_loader(windows_beds: Beds, tmp_path: Path, firmware: Firmware) -> None:
    disk = windows_beds.disk(tmp_path / "disk.raw", Windows(firmware=firmware))
    if firmware == "uefi":
        sh("mdir", "-i", f"{disk.path}@@{disk.loader.offset}", f"::/{EFI_LOADER}")
        assert disk.recovery is not None
        assert "Recovery/WindowsRE/Winre.wim" in ntfs_judges.files_of(disk.path, *at(disk.recovery))
        return
    assert {"bootmgr", "Boot/BCD"} <= ntfs_judges.files_of(disk.path, *at(disk.loader)).keys()


def test_windows_files_belong_to_its_installer(windows_beds: Beds, tmp_path: Path) -> None:
    disk = windows_beds.disk(tmp_path / "disk.raw")
    assert ntfs_judges.protection(disk.path, *at(disk.system), CMD) == OF_SYSTEM_FILES
    numbers = ntfs_judges.security_ids(disk.path, *at(disk.system))
    assert numbers[CMD] == numbers[f"{SYSTEM32}/drivers/disk.sys"] != numbers[f"{CONFIG}/SYSTEM"]
    assert numbers[CMD] != 0


# ---------------------------------------------------------------- states


def volume_flags(disk: WindowsDisk) -> int:
    with ntfs_judges.volume_of(disk.path, *at(disk.system)) as volume:
        (information,) = volume.mft.get(3).attributes[ATTRIBUTE_TYPE_CODE.VOLUME_INFORMATION]
        flags: int = struct.unpack_from("<H", information.data(), 10)[0]
        return flags


def test_volume_to_be_checked_has_the_dirty_flag(windows_beds: Beds, tmp_path: Path) -> None:
    assert volume_flags(windows_beds.disk(tmp_path / "clean.raw")) == CLEAN
    disk = windows_beds.disk(tmp_path / "disk.raw", Windows(), states.to_be_checked)
    assert volume_flags(disk) == DIRTY


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (states.hibernated, "Windows is hibernated"),
        (states.unclean_log, "unclean file system"),
        (states.log_of_fast_startup, "Metadata kept in Windows cache"),
    ],
)
def test_ntfs_3g_refuses_to_write(windows_beds: Beds, tmp_path: Path, state: states.Make, reason: str) -> None:
    disk = windows_beds.disk(tmp_path / "disk.raw", Windows(), state)
    with loop(disk.path, offset=disk.system.offset, length=disk.system.length) as device:
        argv = ("ntfs-3g", "-o", "norecover", device, tmp_path)
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        sh("umount", tmp_path)
    assert reason in done.stderr and "read-only" in done.stderr


def test_disk_manager_and_storage_space_have_their_types(windows_beds: Beds, tmp_path: Path) -> None:
    uefi = Windows(firmware="uefi")
    mbr = windows_beds.disk(tmp_path / "mbr.raw", Windows(), states.dynamic).path
    gpt = windows_beds.disk(tmp_path / "gpt.raw", uefi, states.dynamic).path
    spaces = windows_beds.disk(tmp_path / "spaces.raw", uefi, states.in_storage_space).path
    assert sh("sfdisk", "--part-type", mbr, "1").strip() == "42"
    assert sh("sfdisk", "--part-type", gpt, "3").strip() == states.LDM_DATA
    assert sh("sfdisk", "--part-type", spaces, "3").strip() == states.STORAGE_SPACES


def test_bitlocker_leaves_no_ntfs(windows_beds: Beds, tmp_path: Path) -> None:
    disk = windows_beds.disk(tmp_path / "disk.raw", Windows(), states.encrypted)
    probed = sh("blkid", "--probe", "--offset", str(disk.system.offset), "--output", "value", "-s", "TYPE", disk.path)
    assert probed.strip() in ("", "BitLocker")


def test_compressed_files(windows_beds: Beds, tmp_path: Path) -> None:
    disk = windows_beds.disk(tmp_path / "disk.raw", Windows(), states.compacted, states.with_compressed_inf)
    found = files_of(disk)
    assert found[CMD].kind == "link"
    assert read(disk, f"{CMD}:WofCompressedData") == system_files(disk.windows)[CMD]
    log = "Windows/INF/setupapi.dev.log"
    assert found[log] == ntfs_judges.as_entry(system_files(disk.windows)[log])
    with ntfs_judges.volume_of(disk.path, *at(disk.system)) as volume:
        (data,) = volume.mft.get(log).attributes[ATTRIBUTE_TYPE_CODE.DATA]
        assert data.header.header.Form.Nonresident.CompressionUnit


@pytest.mark.parametrize("release", [SERVER_2022, WINDOWS_7], ids=lambda release: release.name)
def test_dirty_registry_lacks_what_its_logs_have(windows_beds: Beds, tmp_path: Path, release: Release) -> None:
    steps = [render([(f"ControlSet001\\Services\\Added{number}", {"Start": dword(4)})]) for number in range(3)]
    disk = windows_beds.disk(tmp_path / "disk.raw", Windows(release=release), states.dirty_registry(*steps))
    primary = read(disk, f"{CONFIG}/SYSTEM")
    first, second = struct.unpack_from("<II", primary, 4)
    assert first == second + 1
    log1, log2 = read(disk, f"{CONFIG}/SYSTEM.LOG1"), read(disk, f"{CONFIG}/SYSTEM.LOG2")
    if release is WINDOWS_7:
        assert log1[512:516] == b"DIRT" and log2 == b""
        return
    assert [log1.count(b"HvLE"), log2.count(b"HvLE")] == [2, 1]
    assert struct.unpack_from("<I", log1, 512 + 12)[0] == second


# ---------------------------------------------------------------- hives and drivers


def test_judges_of_hives_see_a_difference(tmp_path: Path) -> None:
    make_hive(tmp_path / "A", render([("One\\Two", {"x": dword(1), "@": binary(b"\1\2\3")})]))
    before = values_of(tmp_path / "A")
    assert before["One\\Two"] == {"x": (REG_DWORD, b"\1\0\0\0"), "": (3, b"\1\2\3")}
    merge(tmp_path / "A", render([("One\\Two", {"x": dword(2)})]))
    assert values_of(tmp_path / "A") != before


def test_judges_of_files_see_a_difference(windows_beds: Beds, tmp_path: Path) -> None:
    disk = windows_beds.disk(tmp_path / "disk.raw")
    before = files_of(disk)
    disk.change(lambda files: (files / "Windows/INF/new.inf").write_text("[Version]"))
    assert ntfs_judges.differences(before, files_of(disk)).startswith("Windows/INF/new.inf: None, Entry(kind='file'")


def test_drivers_of_windows_10_are_attested(tmp_path: Path) -> None:
    folder = driver_folder(tmp_path, "attested", ("w8.1", "w11"))
    for suffix in ("sys", "cat"):
        signers = []
        for release in ("w8.1", "w11"):
            argv = ("osslsigncode", "verify", "-in", folder / "viostor" / release / f"amd64/viostor.{suffix}")
            done = subprocess.run(argv, capture_output=True, text=True, check=False)  # nobody trusts these authorities
            assert "Signer's certificate" in done.stdout
            signers.append("O=Microsoft Corporation/CN=Microsoft Windows Hardware" in done.stdout)
        assert signers == [False, True]


def test_disc_has_the_layout_of_virtio_win(virtio_win: Path, tmp_path: Path) -> None:
    paths = set(sh("isoinfo", "-J", "-f", "-i", virtio_win).split("\n"))
    for folder, arch in (("w7", "x86"), ("w10", "x86"), ("w11", "amd64"), ("2k12R2", "amd64"), ("2k25", "amd64")):
        for driver, name in FILES.items():
            place = f"/{driver}/{folder}/{arch}/{name}"
            assert {f"{place}.{suffix}" for suffix in ("inf", "sys", "cat", "pdb")} <= paths
        assert f"/{arch}/{folder}/viostor.sys" in paths
    assert "/viostor/2k25/x86/viostor.sys" not in paths
    assert "/guest-agent/qemu-ga-x86_64.msi" in paths
    for folder in SINCE_10:
        text = sh("isoinfo", "-J", "-i", virtio_win, "-x", f"/viostor/{folder}/amd64/viostor.inf")
        assert ("= 13" in text) == (folder in IN_DRIVER_STORE)
