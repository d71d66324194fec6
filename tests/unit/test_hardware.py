"""The new machine: what is asked for goes before what the source had, and that before the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.nics import nics_as_they_were
from hyper2kvmd.hardware import decide_hardware, expected_hardware, hardware_concerns, require_possible
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import EXTRAS, Capabilities, FamilyName, Guest, Nic, Rtc
from hyper2kvmd.model.machine import Firmware, Hardware, Plan, SourceNic
from tests.support.benches import plan_for
from tests.support.guest_on_disk import partition

UUID = "564d0000-0000-0000-0000-00000000000"


def planned(
    source: Mapping[str, object], asked: Mapping[str, object], firmware: Firmware = "bios"
) -> tuple[Migration, Plan]:
    plan = plan_for((), Layout(tables=()), firmware)
    plan = plan.with_changes(machine=plan.machine.with_changes(**source))
    return Migration.model_validate({"vmdk": Path("/a.vmdk"), "vm_name": "a", **asked}), plan


def decided(
    source: Mapping[str, object],
    asked: Mapping[str, object],
    guest: Guest | None = None,
    firmware: Firmware = "bios",
) -> Hardware:
    migration, plan = planned(source, asked, firmware)
    return decide_hardware(migration, plan, guest or Guest())


def test_what_is_asked_for_overrides_the_source() -> None:
    found = decided({"memory": 4096, "vcpus": 4}, {"memory": 512, "machine": "pc"})
    assert (found.memory, found.vcpus, found.machine) == (512, 4, "pc")


def test_where_nothing_tells_there_is_a_default() -> None:
    found = decided({}, {})
    assert (found.memory, found.vcpus, found.machine) == (2048, 2, "q35")


def test_the_machine_boots_from_the_guests_boot_disk() -> None:
    assert (decided({}, {}).boot_disk, decided({}, {}, Guest(boot_disk=1)).boot_disk) == (0, 1)


def test_the_guests_drivers_decide_on_the_devices() -> None:
    capable = Capabilities(disk_bus="sata", nic_model="e1000e", rtc="localtime")
    found = decided({}, {}, Guest(family="windows", capabilities=capable))
    assert (found.disk_bus, found.nic_model, found.rtc) == ("sata", "e1000e", "localtime")
    assert decided({}, {}, Guest(capabilities=capable.with_changes(extras=("usb",)))).extras == ("usb",)


@pytest.mark.parametrize(
    ("source", "asked", "firmware", "on"),
    [
        (True, None, "uefi", True),
        (False, None, "uefi", False),
        (None, None, "uefi", False),
        (True, False, "uefi", False),
        (None, True, "uefi", True),
        (True, None, "bios", False),
    ],
)
def test_secure_boot_needs_uefi(source: bool | None, asked: bool | None, firmware: Firmware, on: bool) -> None:
    assert decided({"secure_boot": source}, {"secure_boot": asked}, firmware=firmware).secure_boot is on


@pytest.mark.parametrize(("asked", "on"), [(None, False), (True, True)])
def test_a_guest_that_lost_a_signature_gets_no_secure_boot_unless_it_is_asked_for(asked: bool | None, on: bool) -> None:
    unsigned = Guest(capabilities=Capabilities(secure_boot=False))
    found = decided({"secure_boot": True}, {"secure_boot": asked}, unsigned, "uefi")
    assert found.secure_boot is on


@pytest.mark.parametrize(
    ("source", "asked", "has"),
    [(True, None, True), (None, None, False), (True, False, False), (None, True, True)],
)
def test_a_tpm_is_kept_given_or_left_out(source: bool | None, asked: bool | None, has: bool) -> None:
    assert decided({"tpm": source}, {"tpm": asked}).tpm is has


@pytest.mark.parametrize(
    ("source", "asked", "family", "topology"),
    [
        ({"vcpus": 8, "cores_per_socket": 4}, {}, "linux", (2, 4)),
        ({"vcpus": 8, "cores_per_socket": 4}, {"vcpus": 12}, "linux", (3, 4)),
        ({"vcpus": 8, "cores_per_socket": 4}, {"vcpus": 6}, "linux", (None, None)),
        ({"vcpus": 8}, {}, "linux", (None, None)),
        ({"vcpus": 8}, {}, "windows", (1, 8)),
        ({"vcpus": 8, "cores_per_socket": 1}, {}, "windows", (8, 1)),
    ],
)
def test_cores_fill_whole_sockets(
    source: dict[str, object], asked: dict[str, object], family: str, topology: tuple[int | None, int | None]
) -> None:
    found = decided(source, asked, Guest().with_changes(family=family))
    assert (found.sockets, found.cores_per_socket) == topology


def test_identity_and_drives_are_the_sources() -> None:
    identity = {
        "uuid": "564d0000-0000-0000-0000-000000000001",
        "serial": "VMware-56 4d",
        "genid": "564d0000-0000-0000-0000-000000000002",
    }
    found = decided({**identity, "cdroms": 2}, {})
    assert (found.uuid, found.serial, found.genid, found.cdroms) == (*identity.values(), 2)
    assert (decided({}, {}).cdroms, decided({"cdroms": 90}, {}).cdroms) == (0, 4)


@pytest.mark.parametrize(
    ("network_map", "networks"),
    [
        ({}, [None, None, None]),
        ({"VM Network": "lan"}, ["lan", None, None]),
        ({"VM Network": "lan", "default": "bridge:br0"}, ["lan", "bridge:br0", "bridge:br0"]),
    ],
)
def test_each_card_keeps_its_own_network(network_map: dict[str, str], networks: list[str | None]) -> None:
    cards = ("VM Network", "Backup", None)
    nics = tuple(Nic(name=None, mac=f"52:54:00:00:00:0{number}", network=one) for number, one in enumerate(cards))
    found = decided({}, {"network_map": network_map}, Guest(nics=nics))
    assert [nic.network for nic in found.nics] == networks
    assert found.macs == tuple(nic.mac for nic in nics)


def test_hyperv_is_for_windows() -> None:
    assert (decided({}, {}).hyperv, decided({}, {}, Guest(family="windows")).hyperv) == (False, True)


@pytest.mark.parametrize("serial", ["VMware\x01", "", "V" * 256])
def test_a_serial_number_that_xml_cannot_hold_is_left_out(serial: str) -> None:
    assert decided({"serial": serial}, {}).serial is None


@pytest.mark.parametrize(
    ("source", "asked", "firmware", "remedy"),
    [
        ({}, {"secure_boot": True}, "bios", "Set secure_boot: false, or set uefi: true"),
        ({"secure_boot": True}, {"machine": "pc"}, "uefi", "Set secure_boot: false, or set machine: q35"),
    ],
)
def test_secure_boot_that_no_machine_can_have_is_refused(
    source: Mapping[str, object], asked: Mapping[str, object], firmware: Firmware, remedy: str
) -> None:
    with pytest.raises(MigrationFailed) as caught:
        require_possible(*planned(source, asked, firmware))
    assert (caught.value.code, caught.value.hint) == ("secure-boot-impossible", remedy)
    require_possible(*planned(source, {**asked, "secure_boot": False}, firmware))


def test_a_source_with_secure_boot_and_bios_needs_no_refusal() -> None:
    """VMware keeps the setting of a machine that was changed to BIOS."""
    require_possible(*planned({"secure_boot": True}, {"machine": "pc"}))
    require_possible(*planned({"secure_boot": True}, {"machine": "pc-q35-7.2"}, "uefi"))


@pytest.mark.parametrize(
    ("source", "asked", "codes"),
    [
        ({}, {}, []),
        ({"tpm": True}, {"tpm": False}, ["tpm-state-lost"]),
        ({}, {"tpm": True}, []),
        ({"secure_boot": True}, {}, ["secure-boot-keys-lost"]),
        ({"secure_boot": True}, {"secure_boot": False}, []),
    ],
)
def test_what_stays_behind_is_a_concern(
    source: Mapping[str, object], asked: Mapping[str, object], codes: list[str]
) -> None:
    assert [one.code for one in hardware_concerns(*planned(source, asked, "uefi"))] == codes


@pytest.mark.parametrize(
    ("network_map", "unmapped"),
    [
        ({}, None),
        ({"LAN": "lan"}, "DMZ, (unknown)"),
        ({"LAN": "lan", "DMZ": "bridge:br1"}, "(unknown)"),
        ({"default": "lan"}, None),
    ],
)
def test_a_network_that_the_map_leaves_out_is_a_concern(network_map: dict[str, str], unmapped: str | None) -> None:
    nics = ({"mac": None, "network": "LAN"}, {"mac": None, "network": "DMZ"}, {"mac": None}, {"mac": None})
    concerns = list(hardware_concerns(*planned({"nics": nics}, {"network_map": network_map})))
    found = [one.message for one in concerns if one.code == "network-unmapped"]
    assert len(found) == (unmapped is not None) and all(f"no entry for {unmapped}: " in message for message in found)


@pytest.mark.parametrize(
    ("networks", "network_map", "codes"),
    [
        (("LAN", "DMZ"), {}, ["networks-merged"]),
        (("LAN", "LAN", None), {}, []),
        (("LAN",), {"lan": "lan", "default": "other"}, ["network-unknown"]),
        ((), {"LAN": "lan"}, ["network-unknown"]),
        ((), {"default": "lan"}, []),
        (("LAN",), {"LAN": "lan", "default": "other"}, []),
    ],
)
def test_networks_that_do_not_stay_apart_or_do_not_exist_are_concerns(
    networks: tuple[str | None, ...], network_map: dict[str, str], codes: list[str]
) -> None:
    nics = tuple({"mac": f"00:50:56:00:00:0{number}", "network": name} for number, name in enumerate(networks))
    concerns = hardware_concerns(*planned({"nics": nics}, {"network_map": network_map}))
    assert [one.code for one in concerns] == codes


@pytest.mark.parametrize(
    ("source", "code", "targets"),
    [
        ({"genid": UUID + "0"}, "identity-not-kept", ["openstack", "kubevirt"]),
        ({"cdroms": 1}, "device-not-migrated", ["openstack", "kubevirt"]),
        ({"rtc": "localtime"}, "clock-not-kept", ["kubevirt"]),
        ({"rtc": "utc"}, "clock-not-kept", []),
    ],
)
def test_what_a_target_has_no_setting_for_is_a_concern(
    source: dict[str, object], code: str, targets: list[str]
) -> None:
    found = {
        target: [(one.code, one.level) for one in hardware_concerns(*planned(source, {"target": target}))]
        for target in ("libvirt", "qemu", "proxmox", "openstack", "kubevirt")
    }
    assert found == {target: [(code, "information")] * (target in targets) for target in found}


@pytest.mark.parametrize(
    ("target", "connected", "concern"),
    [
        ("qemu", (True, False), "network card 2 is not connected"),
        ("kubevirt", (False, True, False), "network cards 1, 3 are not connected"),
        ("qemu", (True,), None),
        *((target, (False,), None) for target in ("libvirt", "proxmox", "openstack")),
    ],
)
def test_a_card_that_gets_connected_is_a_concern(target: str, connected: tuple[bool, ...], concern: str | None) -> None:
    nics = tuple({"mac": None, "connected": one} for one in connected)
    concerns = hardware_concerns(*planned({"nics": nics}, {"target": target}))
    found = [one.message.partition(" when ")[0] for one in concerns if one.code == "card-connected"]
    assert found == ([concern] if concern else [])


@pytest.mark.parametrize(
    ("family", "source", "guest", "rtc"),
    [
        ("none", "localtime", "utc", "localtime"),
        ("linux", "localtime", "utc", "localtime"),
        ("linux", None, "utc", "utc"),
        ("windows", "utc", "localtime", "localtime"),
    ],
)
def test_the_clock_is_the_source_s_unless_windows_reads_it_otherwise(
    family: FamilyName, source: Rtc | None, guest: Rtc, rtc: Rtc
) -> None:
    system = Guest(family=family, capabilities=Capabilities(rtc=guest))
    assert decide_hardware(*planned({"rtc": source}, {}), system).rtc == rtc


def test_a_card_that_is_not_connected_stays_so() -> None:
    guest = Guest(nics=nics_as_they_were((SourceNic(mac=None), SourceNic(mac=None, connected=False)), "web01"))
    assert [nic.connected for nic in decide_hardware(*planned({}, {}), guest).nics] == [True, False]


@pytest.mark.parametrize(
    ("macs", "shared"),
    [
        (("00:50:56:00:00:01", "00:50:56:00:00:02", "00:50:56:00:00:01"), "2 network cards"),
        (("00:50:56:00:00:01", "00:50:56:00:00:02"), None),
        ((None, None), None),
    ],
)
def test_cards_with_one_address_are_a_concern(macs: tuple[str | None, ...], shared: str | None) -> None:
    concerns = list(hardware_concerns(*planned({"nics": tuple({"mac": mac} for mac in macs)}, {})))
    assert [one.code for one in concerns] == ([] if shared is None else ["mac-duplicate"])
    assert all(one.message.startswith(f"{shared} of the source machine have the MAC address") for one in concerns)


def test_before_the_guest_is_known_the_cards_with_an_address_are_expected() -> None:
    nics = ({"mac": "00:50:56:00:00:01", "network": "LAN"}, {"mac": None, "network": "DMZ"})
    found = expected_hardware(*planned({"nics": nics}, {"network_map": {"LAN": "lan"}}))
    assert [(nic.mac, nic.network) for nic in found.nics] == [("00:50:56:00:00:01", "lan")]


@pytest.mark.parametrize(
    ("os_type", "rtc", "hyperv", "extras"),
    [
        ("windows2019srv-64", "localtime", True, ("usb",)),
        ("windows9_64Guest", "localtime", True, ("usb",)),
        ("windows7srv-64", "localtime", True, ()),
        ("rhel9_64Guest", "utc", False, EXTRAS),
        (None, "utc", False, EXTRAS),
    ],
)
def test_a_windows_that_was_not_inspected_is_known_by_its_description(
    os_type: str | None, rtc: str, *, hyperv: bool, extras: tuple[str, ...]
) -> None:
    found = decided({"os_type": os_type, "vcpus": 4}, {"guest": "none"}, Guest(family="none"))
    assert (found.rtc, found.hyperv, found.extras) == (rtc, hyperv, extras)
    assert found.cores_per_socket == (4 if hyperv else None)
    linux = decided({"os_type": os_type, "vcpus": 4}, {}, Guest())
    assert not linux.hyperv and linux.extras == EXTRAS, "the guest that was found is believed more"


@pytest.mark.parametrize(
    ("os_type", "contents", "told"),
    [
        ("rhel9_64Guest", ("ext4",), True),
        (None, ("vfat", "ext4"), True),
        ("windows2019srv-64", (), False),
        (None, ("vfat", "ntfs"), False),
        (None, ("ntfs", "ext4"), True),
    ],
)
def test_keys_of_mok_concern_no_windows(os_type: str | None, contents: tuple[str, ...], *, told: bool) -> None:
    migration, plan = planned({"secure_boot": True, "os_type": os_type}, {}, "uefi")
    volumes = tuple(partition(number, content) for number, content in enumerate(contents, start=1))
    plan = plan.with_changes(layout=Layout(tables=("gpt",), volumes=volumes))
    codes = {one.code for one in hardware_concerns(migration, plan)}
    assert ("secure-boot-keys-lost" in codes) == told
