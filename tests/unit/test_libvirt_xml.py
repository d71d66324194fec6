"""The machine of a libvirt domain, from its XML."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
from hyper2kvmd.machines.libvirt_xml import DEVICES_MAX, machine_of
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import DISKS_MAX, Migration
from hyper2kvmd.model.disks import LocalFile, NamedBy
from hyper2kvmd.model.machine import Machine, SourceNic
from tests.support.libvirt_machines import MACHINES, xml_of_machine

PATH = Path("/etc/libvirt/qemu/shop.xml")
UUID = "564d1d2a-9f0e-4a3b-8c55-0123456789ab"
DISK = "<disk type='file' device='disk'><source file='/i/shop.qcow2'/><target dev='vda' bus='virtio'/></disk>"


def domain(inside: str = "", devices: str = DISK, attributes: str = "type='kvm'") -> str:
    return f"<domain {attributes}><name>shop</name>{inside}<devices>{devices}</devices></domain>"


def read(text: str) -> Machine:
    return machine_of(text.encode(), PATH, NamedBy(path=PATH, uid=0))


def refusal(text: str) -> Failure:
    with pytest.raises(Failure) as caught:
        read(text)
    assert str(PATH) in caught.value.message
    return caught.value


def files(machine: Machine) -> list[str]:
    return [str(disk.at) for disk in machine.disks]


def test_everything_at_once() -> None:
    found = read(
        "<!-- written by virsh -->"
        + domain(
            f"<uuid>{UUID.upper()}</uuid><genid>{UUID}</genid><memory unit='GiB'>4</memory><vcpu>8</vcpu>"
            "<os firmware='efi'><firmware><feature enabled='yes' name='secure-boot'/></firmware></os>"
            "<sysinfo type='smbios'><system><entry name='serial'>S-1</entry></system></sysinfo>"
            "<cpu><topology sockets='2' dies='1' cores='2' threads='2'/></cpu>",
            DISK
            + "<disk device='cdrom' type='file'><target dev='sda'/></disk>"
            + "<interface type='network'><mac address='52:54:00:AA:BB:CC'/><source network='lan'/></interface>"
            + "<interface type='bridge'><mac address='52:54:00:aa:bb:cd'/><source bridge='br0'/><link state='down'/>"
            + "</interface>"
            + "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>",
        )
    )
    assert found == Machine(
        disks=found.disks,
        name="shop",
        memory=4096,
        vcpus=8,
        cores_per_socket=4,
        firmware="uefi",
        secure_boot=True,
        tpm=True,
        uuid=UUID,
        serial="S-1",
        genid=UUID,
        cdroms=1,
        nics=(
            SourceNic(mac="52:54:00:aa:bb:cc", network="lan"),
            SourceNic(mac="52:54:00:aa:bb:cd", network="br0", connected=False),
        ),
    )
    assert [disk.at for disk in found.disks] == [
        LocalFile(path=Path("/i/shop.qcow2"), named_by=NamedBy(path=PATH, uid=0))
    ]


@pytest.mark.parametrize(
    ("clock", "rtc"),
    [
        ("<clock offset='utc'/>", "utc"),
        ("<clock offset='localtime'/>", "localtime"),
        ("<clock offset='variable' adjustment='3600' basis='localtime'/>", "localtime"),
        ("<clock offset='variable' adjustment='3600'/>", "utc"),
        ("<clock offset='timezone' timezone='Europe/Berlin'/>", None),
        ("", None),
    ],
)
def test_the_clock(clock: str, rtc: str | None) -> None:
    assert read(domain(clock)).rtc == rtc


@pytest.mark.parametrize(("offset", "becomes"), [("variable", "UTC"), ("timezone", "UTC"), ("utc", None)])
def test_a_clock_of_its_own_is_a_concern(offset: str, becomes: str | None) -> None:
    concerns = read(domain(f"<clock offset='{offset}' timezone='Europe/Berlin'/>")).concerns
    assert [(one.code, one.level) for one in concerns] == [("clock-not-kept", "information")] * bool(becomes)
    assert all(f"is in {becomes}" in one.message for one in concerns)


def test_an_adjustment_against_local_time_is_a_concern() -> None:
    (found,) = read(domain("<clock offset='variable' basis='localtime'/>")).concerns
    assert found.code == "clock-not-kept" and "is in local time" in found.message


@pytest.mark.parametrize(
    ("vcpu", "vcpus", "concern"),
    [
        ("<vcpu current='2'>8</vcpu>", 2, True),
        ("<vcpu current='8'>8</vcpu>", 8, False),
        ("<vcpu current='9'>8</vcpu>", 8, False),
        ("<vcpu current='x'>8</vcpu>", 8, False),
        ("<vcpu current='2'>x</vcpu>", None, False),
    ],
)
def test_the_current_number_of_cpus(vcpu: str, vcpus: int | None, concern: bool) -> None:
    found = read(domain(vcpu))
    assert (found.vcpus, [one.code for one in found.concerns]) == (vcpus, ["maximum-not-kept"] * concern)
    assert all("2 of at most 8 CPUs" in one.message and one.level == "information" for one in found.concerns)


@pytest.mark.parametrize(("current", "concern"), [(1 << 20, True), (2 << 20, False), (3 << 20, False)])
def test_the_current_memory(current: int, concern: bool) -> None:
    found = read(domain(f"<memory unit='GiB'>2</memory><currentMemory>{current}</currentMemory>"))
    assert (found.memory, [one.code for one in found.concerns]) == (2048, ["maximum-not-kept"] * concern)
    assert all("1.0 GiB of 2.0 GiB" in one.message and one.level == "information" for one in found.concerns)


def test_serial_numbers_of_disks_are_a_concern() -> None:
    disks = "".join(DISK.replace("</disk>", f"<serial>{number}</serial></disk>") for number in ("S-1", "S-2"))
    (found,) = read(domain(devices=disks)).concerns
    assert found.code == "disk-serial-lost" and "('S-1', 'S-2')" in found.message
    assert not read(domain()).concerns


def test_what_is_not_said() -> None:
    found = read(domain())
    assert (found.memory, found.vcpus, found.cores_per_socket, found.uuid, found.serial, found.nics) == (
        *(None,) * 5,
        (),
    )
    assert (found.firmware, found.secure_boot, found.tpm, found.cdroms) == ("bios", None, False, 0)


@pytest.mark.parametrize(
    ("os_element", "firmware", "secure_boot"),
    [
        ("<os><loader type='pflash'>/OVMF.fd</loader></os>", "uefi", False),
        ("<os><loader type='pflash' secure='yes'>/OVMF.fd</loader></os>", "uefi", True),
        ("<os><loader type='rom'>/bios.bin</loader></os>", "bios", None),
        ("<os firmware='bios'/>", "bios", None),
        ("<os firmware='efi'/>", "uefi", False),
        ("<os firmware='efi'><firmware><feature enabled='no' name='secure-boot'/></firmware></os>", "uefi", False),
        ("<os firmware='efi'><firmware><feature enabled='yes' name='secure-boot'/>"
         "<feature enabled='no' name='enrolled-keys'/></firmware></os>", "uefi", False),
    ],
)  # fmt: skip
def test_firmware(os_element: str, firmware: str, secure_boot: bool | None) -> None:
    found = read(domain(os_element))
    assert (found.firmware, found.secure_boot) == (firmware, secure_boot)


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory>1048576</memory>", 1024),
        ("<memory unit='bytes'>1073741825</memory>", 1025),
        ("<memory unit='MB'>1000</memory>", 954),
        ("<memory unit='furlong'>1</memory>", None),
        ("<memory>-1</memory>", None),
        ("<memory unit='TiB'>999999</memory>", None),
    ],
)
def test_memory(memory: str, mib: int | None) -> None:
    assert read(domain(memory)).memory == mib


def test_disks_in_the_boot_order_come_first() -> None:
    disks = "".join(
        f"<disk type='file'><source file='/i/{name}'/><target dev='vd{name}'/>{boot}</disk>"
        for name, boot in (("a", ""), ("b", "<boot order='2'/>"), ("c", "<boot order='1'/>"), ("d", ""))
    )
    assert files(read(domain(devices=disks))) == ["/i/c", "/i/b", "/i/a", "/i/d"]


@pytest.mark.parametrize(
    ("disk", "fact"),
    [
        (DISK.replace("type='file'", "type='block'"), "is of the type 'block'"),
        (DISK.replace("type='file'", "type='volume'"), "is of the type 'volume'"),
        (DISK.replace("<target", "<encryption format='luks'/><target"), "is encrypted by QEMU"),
        (DISK.replace("/i/shop.qcow2", "shop.qcow2"), "has no absolute path of a file, but 'shop.qcow2'"),
        (DISK.replace("/i/shop.qcow2", "/i/a&#10;b"), "has no absolute path of a file"),
        (DISK.replace("<source file='/i/shop.qcow2'/>", ""), "has no absolute path of a file"),
        ("", "the domain has no disks"),
    ],
)
def test_a_disk_that_is_no_file(disk: str, fact: str) -> None:
    failure = refusal(domain(devices=disk))
    assert failure.code == "domain-xml-disk"
    assert fact in failure.message


def test_more_disks_than_one_machine_has() -> None:
    assert len(read(domain(devices=DISK * DISKS_MAX)).disks) == DISKS_MAX
    assert refusal(domain(devices=DISK * (DISKS_MAX + 1))).code == "disks-too-many"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "domain-xml-unreadable"),
        ("[vmx]", "domain-xml-unreadable"),
        (domain()[:-5], "domain-xml-unreadable"),
        ("<domainsnapshot><domain/></domainsnapshot>", "domain-xml-unreadable"),
        ("<domain>" + "<a>" * 100 + "</a>" * 100 + "</domain>", "domain-xml-unreadable"),
        ("<!DOCTYPE domain [<!ENTITY a SYSTEM '/etc/passwd'>]>" + domain(), "domain-xml-doctype"),
    ],
)
def test_what_is_no_domain(text: str, code: str) -> None:
    failure = refusal(text)
    assert failure.code == code
    assert "OVF" not in failure.message and "NAME" not in failure.message


def test_concerns() -> None:
    devices = DISK.replace("<target", "<shareable/><target") + "<disk device='floppy'/><hostdev/><filesystem/>"
    found = read(domain(devices=devices, attributes="type='kvm' id='3'"))
    assert [one.code for one in found.concerns] == [
        "domain-running",
        "disk-shared",
        "floppy-not-migrated",
        "device-not-migrated",
        "device-not-migrated",
    ]


def test_the_key_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.xml"
    path.write_text(domain())
    with Sources(tmp_path) as sources:
        machine = read_machine(Migration(libvirt_xml=path, vm_name="shop"), sources)
    assert files(machine) == ["/i/shop.qcow2"]


@pytest.mark.parametrize("name", MACHINES)
def test_a_domain_of_our_own_is_read_again(name: str) -> None:
    assert files(read(xml_of_machine(name)))


@pytest.mark.parametrize(
    ("device", "what"),
    [("<interface type='user'/>", "network cards"), ("<disk device='cdrom' type='file'/>", "optical drives")],
)
def test_devices_without_end(device: str, what: str) -> None:
    most = read(domain(devices=DISK + device * DEVICES_MAX))
    assert max(len(most.nics), most.cdroms or 0) == DEVICES_MAX
    failure = refusal(domain(devices=DISK + device * (DEVICES_MAX + 1)))
    assert (failure.code, f"has 65 {what}" in failure.message) == ("domain-xml-unreadable", True)


def test_a_path_without_end() -> None:
    failure = refusal(domain(devices=DISK.replace("/i/", "/i" * 2048 + "/")))
    assert failure.code == "domain-xml-disk" and len(failure.message) < 1000


def test_formats() -> None:
    drivers = ("<driver type='raw'/>", "<driver type='vpc'/>", "<driver name='qemu'/>", "<driver type='qed'/>", "")
    found = read(domain(devices="".join(DISK.replace("<source", f"{driver}<source") for driver in drivers)))
    assert [disk.format for disk in found.disks] == ["raw", "vhd", None, None, None]
