"""Which packages of a source a release of Windows gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.drivers.choice import MOST_CANDIDATES, choose_packages, find_agent, signature_concerns
from hyper2kvmd.guest.windows.drivers.package import DriverPackage
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.guest.windows.drivers.vetting import vet
from tests.support.authenticode import ATTESTED, CERTIFIED, authority, microsoft, vendor
from tests.support.iso_image import iso
from tests.support.virtio_win import ALL, FILES, Package, Signed, Stamp, inf, program

SERVER_2019 = WindowsTarget(17763, True, "amd64")
SERVER_2012_R2 = WindowsTarget(9600, True, "amd64")
WINDOWS_10 = WindowsTarget(19045, False, "amd64")
WINDOWS_11 = WindowsTarget(22631, False, "amd64")
AGENT = {
    "guest-agent/qemu-ga-x86_64.msi": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 64",
    "guest-agent/qemu-ga-i386.msi": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 32",
}


def files_of(*packages: Package, place: str = "{driver}/{folder}/{architecture}") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for one in packages:
        folder = place.format(driver=one.driver, folder=one.folder, architecture=one.architecture)
        found |= {f"{folder}/{name}": data for name, data in one.files(vendor()).items()}
    return found


def all_drivers(folder: str, stamp: Stamp, architecture: str = "amd64", signed: Signed = "both") -> tuple[Package, ...]:
    return tuple(Package(driver, folder, stamp, architecture, signed=signed) for driver in FILES)


def opened(tmp_path: Path, files: Mapping[str, bytes]) -> DriverSource:
    path = tmp_path / "virtio-win.iso"
    path.write_bytes(iso(files))
    return DriverSource.open(path)


def chosen(tmp_path: Path, files: Mapping[str, bytes], target: WindowsTarget) -> dict[str, DriverPackage]:
    with opened(tmp_path, files) as source:
        return {package.name: package for package in choose_packages(source, target)}


def refused(tmp_path: Path, files: Mapping[str, bytes], target: WindowsTarget) -> tuple[str, str]:
    with opened(tmp_path, files) as source, pytest.raises(MigrationFailed) as caught:
        choose_packages(source, target)
    return caught.value.code, caught.value.message


def with_devices(count: int) -> bytes:
    lines = "".join(f"x = scsi_inst, PCI\\VEN_1AF4&DEV_1001&SUBSYS_{number:08x}\n" for number in range(count))
    return f"{inf('viostor')}\n[Disks.NTamd64.10.0]\n{lines}".encode()


def with_files(count: int) -> bytes:
    lines = "".join(f"{number}.sys = 1,,\n" for number in range(count))
    return f"{inf('viostor')}\n[SourceDisksFiles]\n{lines}".encode()


@pytest.mark.parametrize(
    ("target", "folder"), [(SERVER_2019, "2k19"), (WINDOWS_10, "w10"), (WINDOWS_11, "w10"), (SERVER_2012_R2, "2k12R2")]
)
def test_the_drivers_for_a_release(tmp_path: Path, target: WindowsTarget, folder: str) -> None:
    found = chosen(tmp_path, files_of(*ALL), target)
    assert {name: package.source for name, package in found.items()} == {
        "viostor": f"viostor/{folder}/amd64/viostor.inf",
        "vioscsi": f"vioscsi/{folder}/amd64/vioscsi.inf",
        "netkvm": f"NetKVM/{folder}/amd64/netkvm.inf",
        "balloon": f"Balloon/{folder}/amd64/balloon.inf",
        "vioserial": f"vioserial/{folder}/amd64/vioser.inf",
    }
    package = found["viostor"]
    assert [file.name for file in package.files] == ["viostor.inf", "viostor.cat", "viostor.sys"]
    assert (package.provider, package.file_version) == ("Red Hat, Inc.", (100, 90, 104, 21500))
    assert package.driver.name == "viostor.sys"
    assert "PCI\\VEN_1AF4&DEV_1042" in package.ids


@pytest.mark.parametrize(
    "place", ["drivers/by-os/{architecture}/{folder}", "drivers/by-driver/{driver}/{folder}", "{architecture}/{folder}"]
)
def test_other_layouts(tmp_path: Path, place: str) -> None:
    files = files_of(*(one for one in ALL if one.folder == "2k19"), place=place)
    assert len(chosen(tmp_path, files, SERVER_2019)) == len(FILES)


def test_the_inf_decides_and_not_the_folder(tmp_path: Path) -> None:
    files = files_of(*all_drivers("w7", Stamp("amd64.10.0")), *all_drivers("2k19", Stamp("amd64.6.1")))
    assert chosen(tmp_path, files, SERVER_2019)["viostor"].source == "viostor/w7/amd64/viostor.inf"
    assert chosen(tmp_path, files, SERVER_2012_R2)["viostor"].source == "viostor/2k19/amd64/viostor.inf"


def test_the_newest_build_that_fits(tmp_path: Path) -> None:
    files = files_of(*all_drivers("a", Stamp("amd64.10.0")), *all_drivers("b", Stamp("amd64.10.0...17763")))
    files |= files_of(*all_drivers("c", Stamp("amd64.10.0...20348")))
    assert chosen(tmp_path, files, SERVER_2019)["netkvm"].source == "NetKVM/b/amd64/netkvm.inf"


@pytest.mark.parametrize(
    ("target", "folder"),
    [
        (SERVER_2019, "2k19"),
        (WindowsTarget(20348, True, "amd64"), "2k22"),
        (WindowsTarget(14393, True, "amd64"), "w10"),
        (WINDOWS_10, "w10"),
        (WINDOWS_11, "w11"),
    ],
)
def test_the_two_builds_of_virtio_win_for_windows_10_and_later(
    tmp_path: Path, target: WindowsTarget, folder: str
) -> None:
    later = Stamp("amd64.10.0...16299", dirid=13)
    files = files_of(*ALL, *all_drivers("w11", later), *all_drivers("2k22", later))
    assert chosen(tmp_path, files, target)["viostor"].source == f"viostor/{folder}/amd64/viostor.inf"


def test_the_newest_version_of_the_same(tmp_path: Path) -> None:
    files = files_of(*all_drivers("a", Stamp(date="02/01/2024")), *all_drivers("b", Stamp(date="12/30/2023")))
    assert chosen(tmp_path, files, SERVER_2019)["viostor"].source == "viostor/a/amd64/viostor.inf"


def test_a_driver_in_the_store_is_for_releases_that_can_start_it(tmp_path: Path) -> None:
    files = files_of(*all_drivers("a", Stamp("amd64.10.0", dirid=13)), *all_drivers("b", Stamp("amd64.6.3")))
    assert chosen(tmp_path, files, WINDOWS_11)["viostor"].runs_from_store
    old = chosen(tmp_path, files, WindowsTarget(14393, True, "amd64"))
    assert old["viostor"].source == "viostor/b/amd64/viostor.inf"
    assert old["netkvm"].source == "NetKVM/a/amd64/netkvm.inf"


def test_a_program_for_another_architecture_is_not_taken(tmp_path: Path) -> None:
    files = files_of(*all_drivers("2k19", Stamp()), *all_drivers("2k12R2", Stamp("amd64.6.3")))
    files["viostor/2k19/amd64/viostor.sys"] = program("x86")
    found = chosen(tmp_path, files, SERVER_2019)
    assert found["viostor"].source == "viostor/2k12R2/amd64/viostor.inf"
    assert found["vioscsi"].source == "vioscsi/2k19/amd64/vioscsi.inf"


def test_a_32_bit_guest(tmp_path: Path) -> None:
    files = files_of(*all_drivers("w10", Stamp("x86.10.0"), "x86", "nothing"), *ALL)
    target = WindowsTarget(19045, False, "x86")
    found = chosen(tmp_path, files, target)
    assert found["viostor"].source == "viostor/w10/x86/viostor.inf"
    concerns = signature_concerns(tuple(found.values()), secure_boot=False)
    assert ["not signed" in one.message for one in concerns] == [True] * 5


@pytest.mark.parametrize(
    ("harm", "fact"),
    [
        ({"viostor/2k19/amd64/viostor.sys": None}, "viostor/2k19/amd64/viostor.inf lacks viostor.sys"),
        ({"viostor/2k19/amd64/viostor.sys": b"no program"}, "has no usable viostor.sys: the file is no program"),
        ({"viostor/2k19/amd64/viostor.sys": program("arm64")}, "has a viostor.sys for arm64"),
        ({"viostor/2k19/amd64/viostor.inf": b"[Version]"}, "it has none for any release"),
        ({"viostor/2k19/amd64/viostor.inf": None}, "it has none for any release"),
        ({"viostor/2k19/amd64/viostor.sys": bytes(17 << 20)}, "has 17.0 MiB, more than 16.0 MiB"),
        ({"viostor/2k19/amd64/viostor.inf": with_devices(70)}, "has 72 devices, more than 64"),
        ({"viostor/2k19/amd64/viostor.inf": with_devices(2001)}, "it has it in viostor/2k19/amd64"),
    ],
)
def test_a_source_without_a_usable_driver(tmp_path: Path, harm: dict[str, bytes | None], fact: str) -> None:
    files: dict[str, bytes | None] = {**files_of(*(one for one in ALL if one.folder == "2k19")), **harm}
    left = {name: data for name, data in files.items() if data is not None}
    code, message = refused(tmp_path, left, SERVER_2019)
    assert (code, fact in message) == ("virtio-win-no-driver", True), message


def in_a_folder(root: Path, files: Mapping[str, bytes]) -> DriverSource:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return DriverSource.open(root)


def test_a_package_with_more_files_than_any_driver_has(tmp_path: Path) -> None:
    files = files_of(*(one for one in ALL if one.folder == "2k19"))
    files["viostor/2k19/amd64/viostor.inf"] = with_files(600)
    files |= {f"viostor/2k19/amd64/{number}.sys": b"x" for number in range(600)}
    with in_a_folder(tmp_path, files) as source, pytest.raises(MigrationFailed) as caught:
        choose_packages(source, SERVER_2019)
    assert "has more than 500 files" in caught.value.message


def test_only_so_many_inf_files_are_tried_for_a_driver(tmp_path: Path) -> None:
    """Each of them could have files of 64 MiB. The best one is the first to be tried, whatever its name is."""
    files = files_of(*(one for one in ALL if one.folder == "2k19"))
    newer = inf("viostor", Stamp(date="01/12/2023")).encode()
    files |= {f"viostor/2k19/amd64/{number}/viostor.inf": newer for number in range(1, MOST_CANDIDATES)}
    with in_a_folder(tmp_path, files) as source:
        assert choose_packages(source, SERVER_2019)[0].source == "viostor/2k19/amd64/viostor.inf"
    files["viostor/2k19/amd64/0/viostor.inf"] = newer
    with in_a_folder(tmp_path, files) as source, pytest.raises(MigrationFailed) as caught:
        choose_packages(source, SERVER_2019)
    assert caught.value.code == "virtio-win-no-driver"


def test_a_source_for_other_releases_names_them(tmp_path: Path) -> None:
    code, message = refused(tmp_path, files_of(*ALL), WindowsTarget(7601, True, "amd64"))
    assert code == "virtio-win-no-driver"
    assert "viostor for Windows Server, build 7601, amd64; it has it in viostor/2k12R2/amd64, viostor/2k19" in message
    code, message = refused(tmp_path, files_of(*ALL), WindowsTarget(22631, False, "arm64"))
    assert "build 22631, arm64" in message


@pytest.mark.parametrize("driver", ["Balloon", "vioserial"])
def test_a_driver_that_the_guest_does_not_need(tmp_path: Path, driver: str) -> None:
    packages = all_drivers("2k19", Stamp())
    missing = files_of(*(one for one in packages if one.driver != driver))
    unsigned = missing | files_of(Package(driver, "2k19", signed="nothing"))
    for files in (missing, unsigned):
        assert driver.lower() not in chosen(tmp_path, files, SERVER_2019)


@pytest.mark.parametrize("driver", ["viostor", "vioscsi", "NetKVM"])
def test_a_driver_that_the_guest_needs_and_that_is_not_signed(tmp_path: Path, driver: str) -> None:
    files = files_of(*all_drivers("2k19", Stamp())) | files_of(Package(driver, "2k19", signed="nothing"))
    for name in list(files):
        if name.startswith(f"{driver}/") and name.endswith(".cat"):
            del files[name]
    code, message = refused(tmp_path, files, SERVER_2019)
    assert code == "driver-not-signed"
    assert f"{driver}/2k19/amd64/{FILES[driver]}.inf is not signed" in message


def test_the_installer_of_the_agent(tmp_path: Path) -> None:
    with opened(tmp_path, AGENT) as source:
        found = find_agent(source, SERVER_2019)
        assert found is not None
        assert (found.source, found.data[-2:]) == ("guest-agent/qemu-ga-x86_64.msi", b"64")
        found = find_agent(source, WindowsTarget(19045, False, "x86"))
        assert found is not None
        assert found.data.endswith(b"32")
        assert find_agent(source, WindowsTarget(22631, False, "arm64")) is None
    with opened(tmp_path, dict.fromkeys(AGENT, b"MZ")) as source:
        assert find_agent(source, SERVER_2019) is None


def test_the_same_from_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "virtio-win"
    for name, data in {**files_of(*ALL), **AGENT}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    with DriverSource.open(root) as source:
        sources = [package.source for package in choose_packages(source, SERVER_2019)]
        assert sources[0] == "viostor/2k19/amd64/viostor.inf"
        assert find_agent(source, SERVER_2019) is not None
        assert not any(name.endswith(".pdb") for name in source.names)


# ---------------------------------------------------------------- before the conversion


def vetted(tmp_path: Path, files: Mapping[str, bytes]) -> list[str]:
    with opened(tmp_path, files) as source:
        return [f"{one.level}: {one.message.partition('iso: ')[2]}" for one in vet(source)]


def test_a_source_is_vetted_before_anything_is_converted(tmp_path: Path) -> None:
    (told,) = vetted(tmp_path, files_of(*ALL))
    assert told.startswith(
        "information: drivers for Windows 11, Server 2016, Server 2019, Server 2022, Server 2025: signed by Red Hat"
    )


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (CERTIFIED, []),
        (ATTESTED, ["8.1, Server 2012 R2", "Server 2016, Server 2019, Server 2022, Server 2025"]),
    ],
)
def test_signatures_of_microsoft_are_told_apart(tmp_path: Path, use: str, told: list[str]) -> None:
    files: dict[str, bytes] = {}
    for one in ALL:
        folder = f"{one.driver}/{one.folder}/{one.architecture}"
        files |= {f"{folder}/{name}": data for name, data in one.files(microsoft(use)).items()}
    found = [one.removeprefix("information: drivers for Windows ").partition(":")[0] for one in vetted(tmp_path, files)]
    assert found == told


def test_a_source_that_no_guest_can_use(tmp_path: Path) -> None:
    for files, code in (
        ({"readme.txt": b""}, "virtio-win-no-driver"),
        ({"setup.exe": b"", "sources/install.wim": b""}, "virtio-win-no-driver"),
        (files_of(*(one for one in ALL if one.driver != "NetKVM")), "virtio-win-no-driver"),
        (files_of(*all_drivers("2k19", Stamp(), signed="nothing")), "driver-not-signed"),
    ):
        with opened(tmp_path, files) as source, pytest.raises(MigrationFailed) as caught:
            vet(source)
        assert caught.value.code == code


def test_a_disc_of_something_else_is_named_as_such(tmp_path: Path) -> None:
    with opened(tmp_path, {"setup.exe": b""}) as source, pytest.raises(MigrationFailed) as caught:
        vet(source)
    assert "contains no driver INF files" in caught.value.message and "checksum" not in caught.value.hint


def test_a_source_that_does_not_exist_has_no_checksum(tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught, DriverSource.open(tmp_path / "missing.iso"):
        pass
    assert caught.value.code == "virtio-win-unreadable" and "checksum" not in caught.value.hint


def test_a_test_signature_is_one_concern_of_all_drivers(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for one in all_drivers("2k19", Stamp()):
        files |= {f"{one.driver}/{name}": data for name, data in one.files(authority()).items()}
    packages = tuple(chosen(tmp_path, files, SERVER_2019).values())
    (concern,) = signature_concerns(packages, secure_boot=False)
    assert concern.level == "warning"
    assert "viostor, vioscsi, netkvm" in concern.message and "bcdedit /set testsigning on" in concern.message


@pytest.mark.parametrize("secure_boot", [False, True])
def test_what_secure_boot_refuses_is_a_concern_only_with_it(tmp_path: Path, *, secure_boot: bool) -> None:
    files: dict[str, bytes] = {}
    for one in all_drivers("2k19", Stamp()):
        files |= {f"{one.driver}/{name}": data for name, data in one.files(microsoft(ATTESTED)).items()}
    packages = tuple(chosen(tmp_path, files, SERVER_2019).values())
    found = [one.message for one in signature_concerns(packages, secure_boot=secure_boot)]
    assert len(found) == secure_boot
    assert all("by attestation" in message for message in found)
