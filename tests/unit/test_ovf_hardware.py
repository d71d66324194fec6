"""Processors, memory, firmware, cards and devices of an OVF descriptor."""

from __future__ import annotations

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.concerns import KEPT
from hyper2kvmd.model.machine import MAX_MEMORY, MAX_VCPUS, Machine, SourceNic
from tests.support.ovf_texts import (
    VERSIONS,
    Item,
    System,
    Version,
    controller,
    cpu,
    device,
    disk,
    envelope,
    memory,
    nic,
    read,
    section,
    setting,
)

DISKS = (controller("3"), disk("4"))
UUID = "564d0102-0304-0506-0708-090a0b0c0d0e"


def machine_with(*items: Item, settings: str = "", sections: str = "", version: Version = "1") -> Machine:
    system = System((*items, *DISKS), settings=settings, sections=sections)
    return read(envelope(system, version=version)).machine


def refusal(*items: Item, settings: str = "", sections: str = "", overridden: frozenset[str] = frozenset()) -> str:
    with pytest.raises(MigrationFailed) as refused:
        read(envelope(System((*items, *DISKS), settings=settings, sections=sections)), overridden=overridden)
    assert refused.value.code == "ovf-value-unclear"
    return str(refused.value)


def codes(machine: Machine) -> list[tuple[str, str]]:
    return [(one.code, one.level) for one in machine.concerns]


# ---------------------------------------------------------------- memory

MEMORY = [
    ("2048", "byte * 2^20", 2048),
    ("2048", "byte*2^20", 2048),
    ("2048", "byte * 2 ^ 20", 2048),
    ("2048", " byte*2 ^20", 2048),
    ("2048", "MegaBytes", 2048),
    ("2048", "megabytes", 2048),
    ("2048", "MB", 2048),
    ("2048", "MiB", 2048),
    ("4", "byte * 2^30", 4096),
    ("4", "byte*2^30", 4096),
    ("4", "GigaBytes", 4096),
    ("4", "GB", 4096),
    ("4", "GiB", 4096),
    ("1", "TB", 1 << 20),
    ("2097152", "KiloBytes", 2048),
    ("2097152", "byte * 2^10", 2048),
    ("2147483648", "byte", 2048),
    ("2147483648", "bytes", 2048),
    ("2000", "byte * 10^6", 1908),
    ("2147483649", "byte", 2049),
    ("4", "byte * 2^20", 4),
    ("16777216", "byte * 2^20", MAX_MEMORY),
    ("2048.0", "byte * 2^20", 2048),
]


@pytest.mark.parametrize(("quantity", "unit", "expected"), MEMORY)
def test_memory_in_each_unit(quantity: str, unit: str, expected: int) -> None:
    assert machine_with(memory(quantity, unit)).memory == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_processors_and_memory_in_each_version(version: Version) -> None:
    machine = machine_with(cpu("4"), memory("8", "GigaBytes"), version=version)
    assert (machine.vcpus, machine.memory) == (4, 8192)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("512", 512), ("2048", 2048), ("65536", 65536), ("4194303", 4194303), ("2147483648", 2048), ("16777217", 17)],
)
def test_memory_without_a_unit_if_only_one_size_is_possible(quantity: str, expected: int) -> None:
    assert machine_with(memory(quantity, None)).memory == expected


@pytest.mark.parametrize("quantity", ["4194304", "8388608", "16777216"])
def test_memory_without_a_unit_if_two_sizes_are_possible(quantity: str) -> None:
    assert quantity in refusal(memory(quantity, None))


@pytest.mark.parametrize(
    ("quantity", "unit"),
    [
        ("0", "byte * 2^20"),
        ("3", "byte * 2^20"),
        ("3", None),
        ("16777217", "byte * 2^20"),
        ("999999999999999999", "byte * 2^30"),
        ("9" * 100, "byte * 2^20"),
        ("-1", "byte * 2^20"),
        ("2 GB", None),
        ("1.5", "byte * 2^30"),
        ("2048", "furlongs"),
        ("2048", "bit * 2^20"),
        ("2048", "byte * 2^200"),
        ("", "byte * 2^20"),
    ],
)
def test_an_unclear_memory_is_refused_unless_the_migration_gives_it(quantity: str, unit: str | None) -> None:
    said = refusal(memory(quantity, unit))
    assert "Set `memory`" in said
    text = envelope(System((memory(quantity, unit), *DISKS)))
    assert read(text, overridden=frozenset({"memory"})).machine.memory is None


def test_clear_facts_are_known_also_if_the_migration_replaces_them() -> None:
    settings = setting("firmware", "efi") + setting("bootOptions.efiSecureBootEnabled", "true")
    text = envelope(System((memory("3072", "byte * 2^20"), cpu("4"), *DISKS), settings=settings))
    found = read(text, overridden=frozenset({"memory", "vcpus", "uefi", "secure_boot"})).machine
    assert (found.memory, found.vcpus, found.firmware, found.secure_boot) == (3072, 4, "uefi", True)


def test_no_memory_and_no_processors_are_unknown() -> None:
    machine = machine_with()
    assert (machine.memory, machine.vcpus, machine.cores_per_socket) == (None, None, None)


@pytest.mark.parametrize("count", ["0", "1025", "-2", "two", "", "1.5", "9" * 30])
def test_an_unclear_number_of_processors_is_refused_unless_the_migration_gives_it(count: str) -> None:
    assert "Set `vcpus`" in refusal(cpu(count))
    assert read(envelope(System((cpu(count), *DISKS))), overridden=frozenset({"vcpus"})).machine.vcpus is None


@pytest.mark.parametrize("count", [1, 3, 128, MAX_VCPUS])
def test_a_number_of_processors(count: int) -> None:
    assert machine_with(cpu(str(count))).vcpus == count


def test_the_clock_of_a_processor_is_no_unit_of_their_number() -> None:
    assert machine_with(Item({**cpu("2").fields, "AllocationUnits": "hertz * 10^6"})).vcpus == 2


@pytest.mark.parametrize("second", ["2", "4"])
def test_two_items_of_processors_or_memory_are_refused(second: str) -> None:
    assert "several items" in refusal(cpu("2"), cpu(second))
    assert "several items" in refusal(memory("2048"), memory(f"{second}048"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bound", ["min", "max", "MIN"])
def test_bounds_are_no_quantities(version: Version, bound: str) -> None:
    items = (cpu("1", bound=bound), cpu("2"), memory("512", bound=bound), memory("1024", bound="normal"))
    machine = machine_with(*items, version=version)
    assert (machine.vcpus, machine.memory) == (2, 1024)


@pytest.mark.parametrize(
    ("vcpus", "cores", "expected"),
    [
        ("8", "4", 4),
        ("8", "1", 1),
        ("8", "8", 8),
        ("8", "3", None),
        ("8", "0", None),
        ("8", "16", None),
        ("8", "x", None),
    ],
)
def test_cores_per_socket(vcpus: str, cores: str, expected: int | None) -> None:
    inside = f'<vmw:CoresPerSocket ovf:required="false">{cores}</vmw:CoresPerSocket>'
    assert machine_with(Item(cpu(vcpus).fields, inside=inside)).cores_per_socket == expected


# ---------------------------------------------------------------- firmware, Secure Boot, TPM


@pytest.mark.parametrize("tag", ["Config", "ExtraConfig"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("value", "firmware"), [("efi", "uefi"), ("EFI", "uefi"), ("bios", "bios"), (" efi ", "uefi"), ("", None)]
)
def test_the_firmware(tag: str, version: Version, value: str, firmware: str | None) -> None:
    assert machine_with(settings=setting("firmware", value, tag), version=version).firmware == firmware


def test_no_firmware_is_unknown() -> None:
    assert machine_with().firmware is None


@pytest.mark.parametrize(
    "settings",
    [setting("firmware", "coreboot"), setting("firmware", "efi") + setting("firmware", "bios"),
     setting("firmware", "efi") + setting("Firmware", "bios", "ExtraConfig")],
)  # fmt: skip
def test_an_unclear_firmware_is_refused_unless_the_migration_gives_it(settings: str) -> None:
    refusal(settings=settings)
    text = envelope(System(DISKS, settings=settings))
    assert read(text, overridden=frozenset({"uefi"})).machine.firmware is None


@pytest.mark.parametrize(
    "key", ["bootOptions.efiSecureBootEnabled", "uefi.secureBoot.enabled", "UEFI.secureboot.ENABLED"]
)
@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("TRUE", True), ("false", False), ("1", True), ("", None)]
)
def test_secure_boot(key: str, value: str, expected: bool | None) -> None:
    assert machine_with(settings=setting(key, value)).secure_boot is expected


@pytest.mark.parametrize(
    "settings",
    [
        setting("uefi.secureBoot.enabled", "maybe"),
        setting("uefi.secureBoot.enabled", "TRUE") + setting("bootOptions.efiSecureBootEnabled", "false"),
    ],
)
def test_an_unclear_secure_boot_is_refused_unless_the_migration_gives_it(settings: str) -> None:
    refusal(settings=settings)
    text = envelope(System(DISKS, settings=settings))
    assert read(text, overridden=frozenset({"secure_boot"})).machine.secure_boot is None


@pytest.mark.parametrize(
    "item",
    [
        device("1", "vmware.vtpm"),
        device("34", "vmware.vtpm"),
        device("34"),
        device("1", "VMware.vTPM", required="false"),
    ],
)
def test_a_tpm(item: Item) -> None:
    machine = machine_with(item)
    assert machine.tpm is True and codes(machine) == []


def test_no_tpm_is_unknown() -> None:
    assert machine_with(device("1", "vmware.vmci")).tpm is None


@pytest.mark.parametrize("value", ["ovf:/file/file2", "/file/file2", "ovf:/file/f9"])
def test_the_variables_of_the_firmware_are_information(value: str) -> None:
    settings = setting("firmware", "efi") + setting("nvram", value, "ExtraConfig")
    assert codes(machine_with(settings=settings)) == [("nvram-not-migrated", "information")]
    assert not machine_with(settings=setting("nvram", value, "ExtraConfig")).concerns


@pytest.mark.parametrize("value", ["", "web01.nvram"])
def test_a_name_of_variables_that_are_not_in_the_package(value: str) -> None:
    assert not machine_with(settings=setting("firmware", "efi") + setting("nvram", value, "ExtraConfig")).concerns


# ---------------------------------------------------------------- VirtualBox


def virtualbox(*hardware: str, about: str = "") -> str:
    inside = f"<ovf:Info/><Hardware>{''.join(hardware)}</Hardware>"
    return f"<vbox:Machine ovf:required='false' version='1.16-linux'{about}>{inside}</vbox:Machine>"


@pytest.mark.parametrize(
    ("kind", "firmware"),
    [("EFI", "uefi"), ("EFI32", "uefi"), ("EFI64", "uefi"), ("EFIDUAL", "uefi"), ("BIOS", "bios"), ("efi", "uefi")],
)
def test_the_firmware_of_virtualbox(kind: str, firmware: str) -> None:
    assert machine_with(sections=virtualbox(f"<Firmware type='{kind}'/>")).firmware == firmware


def test_firmware_that_contradicts_virtualbox_is_refused() -> None:
    refusal(settings=setting("firmware", "bios"), sections=virtualbox("<Firmware type='EFI'/>"))
    assert "Coreboot" not in refusal(sections=virtualbox("<Firmware type='Other'/>"))


@pytest.mark.parametrize(("kind", "tpm"), [("v2_0", True), ("v1_2", False), ("None", False), ("Host", None)])
def test_the_tpm_of_virtualbox(kind: str, tpm: bool | None) -> None:
    assert machine_with(sections=virtualbox(f"<TrustedPlatformModule type='{kind}'/>")).tpm is tpm


def test_the_variables_of_virtualbox() -> None:
    item = device("32768", "nvram", HostResource="ovf:/file/f2")
    assert codes(machine_with(item, sections=virtualbox("<Firmware type='EFI'/>"))) == [
        ("nvram-not-migrated", "information")
    ]
    assert not machine_with(item).concerns


ADAPTERS = (
    "<Network><Adapter slot='1' enabled='true' MACAddress='080027AABB01'/>"
    "<Adapter slot='0' enabled='true' MACAddress='080027AABB00'/>"
    "<Adapter slot='2' enabled='false' MACAddress='080027AABB02'/></Network>"
)


def test_the_addresses_of_virtualbox() -> None:
    machine = machine_with(nic("5", "NAT"), nic("6", "Bridged", "080027CCDD01"), sections=virtualbox(ADAPTERS))
    assert [one.mac for one in machine.nics] == ["08:00:27:aa:bb:00", "08:00:27:cc:dd:01"]


def test_a_cable_of_virtualbox_that_is_not_plugged_in() -> None:
    sections = virtualbox(
        ADAPTERS.replace("slot='0'", "slot='0' cable='false'").replace("slot='1'", "slot='1' cable='true'")
    )
    machine = machine_with(nic("5"), nic("6", "Bridged", AutomaticAllocation="true"), sections=sections)
    assert [one.connected for one in machine.nics] == [False, True]
    assert machine_with(nic("5"), sections=sections).nics[0].connected


def test_the_addresses_of_other_cards_are_not_used() -> None:
    machine = machine_with(nic("5"), sections=virtualbox(ADAPTERS))
    assert machine.nics == (SourceNic(mac=None, network="VM Network"),)


@pytest.mark.parametrize(
    ("about", "hardware"),
    [
        (" uuid='{564D0102-0304-0506-0708-090a0b0c0d0e}'", ""),
        ("", "<Hardware uuid='{564d0102-0304-0506-0708-090A0B0C0D0E}'/>"),
    ],
)
def test_the_uuid_of_virtualbox(about: str, hardware: str) -> None:
    sections = virtualbox(about=about) if about else virtualbox().replace("<Hardware></Hardware>", hardware)
    assert machine_with(sections=sections).uuid == UUID


@pytest.mark.parametrize(
    "text", ["56 4d 01 02 03 04 05 06-07 08 09 0a 0b 0c 0d 0e", "564D0102-0304-0506-0708-090A0B0C0D0E"]
)
def test_the_uuid_of_vmware(text: str) -> None:
    assert machine_with(settings=setting("uuid.bios", text, "ExtraConfig")).uuid == UUID


@pytest.mark.parametrize("text", ["", "create", "56 4d", "x" * 32, "00" * 16, "F" * 32])
def test_text_that_is_no_uuid(text: str) -> None:
    assert machine_with(settings=setting("uuid.bios", text)).uuid is None


# ---------------------------------------------------------------- cards


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("address", "mac"),
    [
        ("00:50:56:AB:CD:EF", "00:50:56:ab:cd:ef"),
        ("00-50-56-ab-cd-ef", "00:50:56:ab:cd:ef"),
        ("005056abcdef", "00:50:56:ab:cd:ef"),
        ("0:50:56:a:b:c", "00:50:56:0a:0b:0c"),
        (None, None),
        ("", None),
    ],
)
def test_the_address_of_a_card(version: Version, address: str | None, mac: str | None) -> None:
    machine = machine_with(nic("5", "DMZ 1", address), version=version)
    assert machine.nics == (SourceNic(mac=mac, network="DMZ 1"),) and not machine.concerns


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("allocation", "connected"), [("true", True), ("FALSE", False), ("0", False), ("", True)])
def test_whether_a_card_is_connected_at_the_start(version: Version, allocation: str, connected: bool) -> None:
    machine = machine_with(nic("5", AutomaticAllocation=allocation), version=version)
    assert [card.connected for card in machine.nics] == [connected]


@pytest.mark.parametrize(
    "address", ["7", "01:00:5e:00:00:01", "00:00:00:00:00:00", "00:50:56:ab:cd", "${mac}", "x" * 200]
)
def test_an_address_that_is_none_is_a_concern(address: str) -> None:
    machine = machine_with(nic("5", mac=address))
    assert machine.nics[0].mac is None and codes(machine) == [("mac-address-invalid", "warning")]


@pytest.mark.parametrize(("network", "expected"), [(None, None), ("", None), ("VM\tNet", None), ("管理", "管理")])
def test_the_network_of_a_card(network: str | None, expected: str | None) -> None:
    assert machine_with(nic("5", network)).nics[0].network == expected


def test_the_slot_of_a_card() -> None:
    inside = setting("slotInfo.pciSlotNumber", "192")
    assert machine_with(Item(nic("5").fields, tag="EthernetPortItem", inside=inside)).nics[0].slot == 192


@pytest.mark.parametrize(
    ("numbers", "networks"),
    [(("9", "10", "7"), "cab"), (("7", "7", "8"), "abc"), ((None, "8", "7"), "abc"), (("2", "1", "0"), "cba")],
)
def test_cards_are_in_the_order_of_their_numbers(numbers: tuple[str | None, ...], networks: str) -> None:
    cards = [
        nic(str(5 + at), name, **({} if number is None else {"AddressOnParent": number}))
        for at, (name, number) in enumerate(zip("abc", numbers, strict=True))
    ]
    assert "".join(str(one.network) for one in machine_with(*cards).nics) == networks


def test_an_ethernet_port_needs_no_type() -> None:
    fields = {"InstanceID": "5", "Connection": "DMZ", "Address": "08-00-27-01-02-03"}
    machine = machine_with(Item(fields, tag="EthernetPortItem"), version="2")
    assert machine.nics == (SourceNic(mac="08:00:27:01:02:03", network="DMZ"),)


# ---------------------------------------------------------------- other devices


@pytest.mark.parametrize("kinds", [(), ("15",), ("16",), ("15", "16", "16")])
def test_optical_drives(kinds: tuple[str, ...]) -> None:
    machine = machine_with(*map(device, kinds))
    assert machine.cdroms == len(kinds) and not machine.concerns


@pytest.mark.parametrize("resource", ["ovf:/file/iso", "ovf:/disk/iso", "/disk/iso"])
def test_a_medium_is_information(resource: str) -> None:
    machine = machine_with(device("15", HostResource=resource))
    assert machine.cdroms == 1 and codes(machine) == [("medium-not-migrated", "information")]


@pytest.mark.parametrize(
    "item", [device("23", "vmware.usb.ehci"), device("24"), device("1", "vmware.vmci"), device("5")]
)
def test_a_device_that_is_not_missed(item: Item) -> None:
    assert not machine_with(item).concerns


@pytest.mark.parametrize(
    ("item", "code", "level"),
    [
        (device("14"), "floppy-not-migrated", "information"),
        (device("21"), "port-not-migrated", "information"),
        (device("22"), "port-not-migrated", "information"),
        (device("35", "ensoniq1371"), "device-not-migrated", "information"),
        (device("1", "vmware.precisionclock"), "device-not-migrated", "warning"),
        (device("1", "vmware.watchdogtimer", required="false"), "device-not-migrated", "information"),
        (device("7"), "device-not-migrated", "warning"),
        (device("40000", required="0"), "device-not-migrated", "information"),
        (device(None), "device-not-migrated", "warning"),
        (device(None, required="false"), "device-not-migrated", "information"),
        (device("x"), "device-not-migrated", "warning"),
        (device("1", "vmware.pci.passthrough"), "pci-not-migrated", "warning"),
        (device("1", "vmware.pcipassthrough", required="false"), "pci-not-migrated", "warning"),
        (device("1", "vmware.pci.passthrough-dynamic"), "pci-not-migrated", "warning"),
        (device("1", "vmware.pci.passthrough-vmiop"), "vgpu-not-migrated", "warning"),
    ],
)
def test_a_device_that_the_new_machine_does_not_have(item: Item, code: str, level: str) -> None:
    (concern,) = machine_with(item).concerns
    assert (concern.code, concern.level) == (code, level) and "thing" in concern.message


def test_a_card_of_the_host() -> None:
    card = Item({**nic("5").fields, "ResourceSubType": "vmware.sriov"})
    machine = machine_with(card)
    assert len(machine.nics) == 1 and codes(machine) == [("pci-not-migrated", "warning")]


def test_a_disk_without_a_type_is_not_missed_silently() -> None:
    item = Item({"ElementName": "disk", "InstanceID": "8", "HostResource": "ovf:/disk/d2"})
    assert codes(machine_with(item)) == [("device-not-migrated", "warning")]


@pytest.mark.parametrize("kind", ["10", "15"])
def test_the_number_of_devices_of_a_kind_is_limited(kind: str) -> None:
    def text(count: int) -> bytes:
        return envelope(System((*(Item({"ResourceType": kind}) for _ in range(count)), *DISKS)))

    assert read(text(64)).disks
    with pytest.raises(MigrationFailed) as refused:
        read(text(65))
    assert refused.value.code == "ovf-too-complex"


def test_the_number_of_concerns_is_limited() -> None:
    concerns = machine_with(*(device("14") for _ in range(1000))).concerns
    assert len(concerns) <= KEPT + 1 and concerns[-1].code == "more-concerns"


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (System(DISKS), "web01"),
        (System(DISKS, name="Web Server (1)"), "Web Server (1)"),
        (System(DISKS, id="vm", system="<vssd:VirtualSystemIdentifier>web02</vssd:VirtualSystemIdentifier>"), "web02"),
        (System(DISKS, id="vm", name="x\ty"), "vm"),
        (System(DISKS, id="vm", name="x" * 256), "vm"),
        (System(DISKS, id="x" * 256), None),
        (System(DISKS, id=None), None),
        (System(DISKS, id="网络服务器"), "网络服务器"),
    ],
)
def test_the_name_of_the_machine(system: System, expected: str | None) -> None:
    assert read(envelope(system)).machine.name == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_the_type_of_the_guest(version: Version) -> None:
    made = section(version, "OperatingSystemSection", "<Info/><Description>RHEL</Description>")
    sections = made.replace("OperatingSystemSection", "OperatingSystemSection vmw:osType='rhel9_64Guest'", 1)
    if version == "0.9":
        sections = made.replace("<Section", "<Section vmw:osType='rhel9_64Guest'", 1)
    assert machine_with(sections=sections, version=version).os_type == "rhel9_64Guest"


def test_the_type_of_the_guest_in_virtualbox() -> None:
    assert machine_with(sections=virtualbox(about=" OSType='Debian_64'")).os_type == "Debian_64"
