"""A whole machine from its .vmx: its hardware, its identity, its network cards."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyper2kvmd.model.machine import Machine, SourceNic
from tests.support.vmx import ONE_DISK, QUIET, WHOLE, codes, failure_of, put, read

BYTES = "56 4d 9b ee ac d9 b4 e7-c8 f0 ea 48 dd c1 1a 2d"
STRAIGHT = "564d9bee-acd9-b4e7-c8f0-ea48ddc11a2d"
SWAPPED = "ee9b4d56-d9ac-e7b4-c8f0-ea48ddc11a2d"


def machine_with(folder: Path, more: dict[str, str]) -> Machine:
    return read(put(folder, {**QUIET, **ONE_DISK, **more}))


def test_everything_at_once(tmp_path: Path) -> None:
    found = machine_with(
        tmp_path,
        {
            "displayName": "Web 01 |22prod|22",
            "guestOS": "rhel9_64Guest",
            "memSize": "4096",
            "numvcpus": "8",
            "cpuid.coresPerSocket": "4",
            "firmware": "efi",
            "uefi.secureBoot.enabled": "TRUE",
            "vtpm.present": "TRUE",
            "uuid.bios": BYTES,
            "vm.genid": "-8536691797830587195",
            "vm.genidX": "-1723453263670062919",
            "sata0.present": "TRUE",
            "sata0:0.present": "TRUE",
            "sata0:0.deviceType": "cdrom-image",
            "sata0:0.fileName": "/vmfs/volumes/iso/x.iso",
        },
    )
    assert found.name == 'Web 01 "prod"'
    assert found.os_type == "rhel9_64Guest"
    assert (found.memory, found.vcpus, found.cores_per_socket) == (4096, 8, 4)
    assert (found.firmware, found.secure_boot, found.tpm) == ("uefi", True, True)
    assert found.uuid == SWAPPED
    assert found.serial == f"VMware-{BYTES}"
    assert found.genid == "09512cc5-940a-8987-b950-f54f631015e8"
    assert (found.cdroms, len(found.disks)) == (1, 1)
    assert found.concerns == ()


def test_what_vmware_takes_for_missing_keys(tmp_path: Path) -> None:
    found = machine_with(tmp_path, {})
    assert (found.memory, found.vcpus, found.cores_per_socket) == (32, 1, 1)
    assert (found.firmware, found.secure_boot, found.tpm, found.cdroms) == ("bios", False, False, 0)
    assert (found.name, found.os_type, found.uuid, found.serial, found.genid) == (None,) * 5
    assert found.nics == ()


@pytest.mark.parametrize("missing", WHOLE)
def test_nothing_is_assumed_of_a_part_of_a_file(missing: str, tmp_path: Path) -> None:
    found = read(put(tmp_path, {key: value for key, value in (WHOLE | ONE_DISK).items() if key != missing}))
    assert (found.memory, found.vcpus, found.cores_per_socket) == (None,) * 3
    assert (found.firmware, found.secure_boot, found.tpm, found.cdroms) == (None,) * 4
    assert codes(found) == []


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("memsize", "8", "memory", 8),
        ("MEMSIZE", "65536", "memory", 65536),
        ("memSize", "3", "memory", None),
        ("memSize", "abc", "memory", None),
        ("memSize", "16777217", "memory", None),
        ("NumVCPUs", "16", "vcpus", 16),
        ("numvcpus", "0", "vcpus", None),
        ("numvcpus", "1025", "vcpus", None),
        ("numvcpus", "2 ", "vcpus", 2),
        ("firmware", "EFI", "firmware", "uefi"),
        ("firmware", "bios", "firmware", "bios"),
        ("uefi.secureBoot.enabled", "TRUE", "secure_boot", True),
        ("uefi.secureBoot.enabled", "FALSE", "secure_boot", False),
        ("vtpm.present", "true", "tpm", True),
        ("vtpm.present", "FALSE", "tpm", False),
        ("managedvm.autoAddVTPM", "software", "tpm", True),
        ("displayName", "web01", "name", "web01"),
        ("displayname", "B\u00fcro", "name", "B\u00fcro"),
        ("displayName", "a|0Ab", "name", None),
        ("displayName", "", "name", None),
        ("displayName", "x" * 300, "name", "x" * 255),
        ("guestos", "windows2019srv-64", "os_type", "windows2019srv-64"),
        ("guestOS", "x|00", "os_type", None),
    ],
)
def test_one_setting(key: str, value: str, field: str, expected: object, tmp_path: Path) -> None:
    assert getattr(machine_with(tmp_path, {key: value}), field) == expected


@pytest.mark.parametrize(
    ("vcpus", "cores", "expected"),
    [
        ("8", "2", 2),
        ("8", "8", 8),
        ("8", "3", None),
        ("8", "16", None),
        ("8", "0", None),
        ("1", "", 1),
        ("x", "2", None),
    ],
)
def test_cores_divide_the_processors(vcpus: str, cores: str, expected: int | None, tmp_path: Path) -> None:
    found = machine_with(tmp_path, {"numvcpus": vcpus, "cpuid.coresPerSocket": cores})
    assert found.cores_per_socket == expected
    assert ("setting-unusable" in codes(found)) is (expected is None)


# ---------------------------------------------------------------- identity


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        *((str(old), STRAIGHT) for old in (4, 7, 8, 9, 10, 11, 12)),
        *((str(new), SWAPPED) for new in (13, 14, 15, 17, 18, 19, 20, 21, 22)),
        ("x", None),
        ("0", None),
    ],
)
def test_the_byte_order_of_the_uuid(version: str, expected: str | None, tmp_path: Path) -> None:
    found = machine_with(tmp_path, {"virtualHW.version": version, "uuid.bios": BYTES})
    assert found.uuid == expected
    assert ("setting-unusable" in codes(found)) is (expected is None)


@pytest.mark.parametrize(
    "written",
    [BYTES, BYTES.upper(), BYTES.replace("-", " "), BYTES.replace(" ", "").replace("-", ""), STRAIGHT, f" {BYTES} "],
)
def test_spellings_of_the_uuid(written: str, tmp_path: Path) -> None:
    found = machine_with(tmp_path, {"uuid.bios": written})
    assert (found.uuid, found.serial) == (SWAPPED, f"VMware-{BYTES}")


@pytest.mark.parametrize("written", ["", "56 4d", BYTES[:-1], f"{BYTES} 00", BYTES.replace("56", "5g"), "x"])
def test_what_is_no_uuid(written: str, tmp_path: Path) -> None:
    found = machine_with(tmp_path, {"uuid.bios": written})
    assert (found.uuid, found.serial) == (None, None)
    assert ("setting-unusable" in codes(found)) is (written != "")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"serialNumber": "ABC-123"}, "ABC-123"),
        ({"serialNumber": "x" * 64}, "x" * 64),
        ({"serialNumber": "x" * 65}, None),
        ({"serialNumber": "a|0Ab"}, None),
        ({"SMBIOS.reflectHost": "TRUE"}, None),
        ({"serialNumber": "ABC", "serialNumber.reflectHost": "TRUE"}, None),
        ({"SMBIOS.useShortSerialNumber": "TRUE"}, None),
        ({"SMBIOS.useShortSerialNumber": "FALSE"}, f"VMware-{BYTES}"),
    ],
)
def test_the_serial_number(more: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    found = machine_with(tmp_path, {"uuid.bios": BYTES, **more})
    assert found.serial == expected
    assert codes(found) == ([] if expected else ["serial-unknown"])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ("1", "2", "00000001-0000-0000-0200-000000000000"),
        ("-1", "-1", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ("9223372036854775807", "0", "ffffffff-ffff-7fff-0000-000000000000"),
        ("1", None, "00000001-0000-0000-0000-000000000000"),
        ("0", "0", None),
        ("x", "1", None),
        (None, None, None),
    ],
)
def test_the_generation_id(low: str | None, high: str | None, expected: str | None, tmp_path: Path) -> None:
    words = {"vm.genid": low, "vm.genidX": high}
    assert machine_with(tmp_path, {key: word for key, word in words.items() if word}).genid == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(data=st.binary(min_size=16, max_size=16), version=st.integers(4, 22))
def test_the_uuid_has_the_bytes_of_the_bios(data: bytes, version: int, tmp_path: Path) -> None:
    found = machine_with(tmp_path, {"virtualHW.version": str(version), "uuid.bios": data.hex(" ")})
    assert found.uuid is not None and found.serial is not None
    own = uuid.UUID(found.uuid)
    assert (own.bytes_le if version >= 13 else own.bytes) == data
    assert bytes.fromhex(found.serial.removeprefix("VMware-").replace("-", " ")) == data


# ---------------------------------------------------------------- network cards

MAC, OTHER = "00:50:56:01:02:03", "00:0c:29:0a:0b:0c"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("static", MAC), ("STATIC", MAC), ("generated", OTHER), ("vpx", OTHER), ("", OTHER), ("manual", OTHER)],
)
def test_the_address_that_counts(kind: str, expected: str, tmp_path: Path) -> None:
    settings = {"ethernet0.present": "TRUE", "ethernet0.address": MAC, "ethernet0.generatedAddress": OTHER}
    found = machine_with(tmp_path, {**settings, **({"ethernet0.addressType": kind} if kind else {})})
    assert found.nics == (SourceNic(mac=expected),)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("static", {"address": "00:50:56:1:2:3"}, MAC),
        ("static", {"address": MAC.upper().replace(":", "-")}, MAC),
        ("static", {"generatedAddress": OTHER}, None),
        ("static", {"address": "ff:ff:ff:ff:ff:ff"}, None),
        ("generated", {"generatedAddress": "x"}, None),
        ("generated", {}, None),
    ],
)
def test_spellings_of_an_address(kind: str, given: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    card = {"present": "TRUE", "addressType": kind, **given}
    found = machine_with(tmp_path, {f"ethernet0.{key}": value for key, value in card.items()})
    assert [nic.mac for nic in found.nics] == [expected]
    used = given.get("address" if kind == "static" else "generatedAddress")
    assert codes(found) == (["setting-unusable"] if used and expected is None else [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"networkName": "VM Network"}, "VM Network"),
        ({"NetworkName": "Produktion |22A|22"}, 'Produktion "A"'),
        ({"networkName": "pg", "dvs.portgroupId": "dvportgroup-7"}, "pg"),
        ({"networkName": "", "dvs.portgroupId": "dvportgroup-7", "dvs.switchId": "50 2e"}, "dvportgroup-7"),
        ({"opaqueNetwork.id": "f0-1", "opaqueNetwork.type": "nsx.LogicalSwitch"}, "f0-1"),
        ({"connectionType": "nat"}, "nat"),
        ({"connectionType": "bridged"}, "bridged"),
        ({"connectionType": "custom", "vnet": "VMnet8"}, "VMnet8"),
        ({"vnet": "VMnet2"}, "VMnet2"),
        ({"networkName": "a|0Ab"}, None),
        ({}, None),
    ],
)
def test_the_network_of_a_card(given: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    card = {"present": "TRUE", **given}
    found = machine_with(tmp_path, {f"ethernet0.{key}": value for key, value in card.items()})
    assert [nic.network for nic in found.nics] == [expected]


@pytest.mark.parametrize(("slot", "expected"), [("192", 192), ("1184", 1184), ("-1", None), ("", None), ("x", None)])
def test_the_slot_of_a_card(slot: str, expected: int | None, tmp_path: Path) -> None:
    found = machine_with(tmp_path, {"ethernet0.present": "TRUE", "ethernet0.pciSlotNumber": slot})
    assert [nic.slot for nic in found.nics] == [expected]


@pytest.mark.parametrize("present", ["FALSE", "", "0", None])
def test_a_card_that_is_not_present(present: str | None, tmp_path: Path) -> None:
    card = {"ethernet0.generatedAddress": OTHER, **({"ethernet0.present": present} if present is not None else {})}
    assert machine_with(tmp_path, card).nics == ()


def test_cards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    cards = {}
    for number in (9, 1, 0, 10):
        cards[f"ethernet{number}.present"] = "TRUE"
        cards[f"ethernet{number}.generatedAddress"] = f"00:0c:29:00:00:{number:02x}"
    found = machine_with(tmp_path, cards)
    assert [nic.mac for nic in found.nics] == [f"00:0c:29:00:00:{number:02x}" for number in (0, 1, 9)]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("key", ["encryption.keySafe", "encryption.data", "ENCRYPTION.KEYSAFE"])
def test_an_encrypted_machine_is_refused_by_name(key: str, tmp_path: Path) -> None:
    failure = failure_of(put(tmp_path, {**QUIET, **ONE_DISK, "displayName": "Payroll", key: "vmware:key/list/..."}))
    assert failure.code == "machine-encrypted"
    assert "Payroll" in failure.message and "Decrypt" in failure.hint


def test_a_suspended_machine_is_refused_by_name(tmp_path: Path) -> None:
    settings = {**QUIET, **ONE_DISK, "displayName": "Payroll", "checkpoint.vmState": "web01-5f3a.vmss"}
    failure = failure_of(put(tmp_path, settings))
    assert failure.code == "machine-suspended"
    assert "Payroll" in failure.message and "web01-5f3a.vmss" in failure.message
    assert read(put(tmp_path, {**settings, "checkpoint.vmState": ""})).disks


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 512, b"KDMV" + b"\0" * 2048, b"# nothing\n", b"PK\x03\x04", b"A=1\n" * (1 << 18) + b"B=2\n"],
    ids=["empty", "zeros", "a disk", "a remark", "an archive", "too large"],
)
def test_what_is_no_vmx(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "web01.vmx"
    path.write_bytes(data)
    assert failure_of(path).code == "vmx-invalid"


def test_a_vmx_with_too_many_settings(tmp_path: Path) -> None:
    assert failure_of(put(tmp_path, {f"k{number}": "1" for number in range(8192)})).code == "vmx-invalid"


@pytest.mark.parametrize("missing", [True, False])
def test_a_vmx_that_is_not_there_or_a_link(missing: bool, tmp_path: Path) -> None:
    path = tmp_path / "web01.vmx"
    if not missing:
        path.symlink_to(put(tmp_path, ONE_DISK).rename(tmp_path / "real.vmx"))
    assert failure_of(path).code == ("source-missing" if missing else "source-unsafe")
