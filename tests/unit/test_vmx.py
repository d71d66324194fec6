"""The .vmx beside a disk: its memory, processors and network cards."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import LocalFile
from hyper2kvmd.model.machine import DiskAddress, Machine, MachineDisk, SourceNic
from tests.support.vmdk_images import descriptor

DISK = descriptor("monolithicFlat", "RW 1 ZERO")
CARD = """.encoding = "UTF-8"
displayName = "web \x00 01"
ethernet0.present = "TRUE"
ethernet0.addressType = "vpx"
ethernet0.generatedAddress = "00:50:56:8A:10:01"
ethernet0.pciSlotNumber = "192"
"""


def machine_of(*disks: Path) -> Machine:
    with Sources(disks[0].parent) as sources:
        return read_machine(Migration(vmdk=disks, vm_name="web01"), sources)


def bare(disk: Path) -> Machine:
    return Machine(disks=(MachineDisk(at=LocalFile(path=disk)),))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "web01.vmdk"
    path.write_bytes(DISK)
    return path


def test_cards_in_order_with_the_address_that_counts(disk: Path) -> None:
    text = CARD + (
        'ethernet2.present = "true"\nethernet2.addressType = "static"\nethernet2.address = "00:50:56:01:02:03"\n'
        'ethernet2.generatedAddress = "00:0c:29:01:02:03"\n'
        'ethernet3.present = "FALSE"\nethernet3.generatedAddress = "00:0c:29:01:02:04"\n'
        'ethernet4.present = "TRUE"\nethernet4.startConnected = "FALSE"\n'
    )
    disk.with_suffix(".vmx").write_text(text)
    assert machine_of(disk).nics == (
        SourceNic(mac="00:50:56:8a:10:01", slot=192),
        SourceNic(mac="00:50:56:01:02:03"),
        SourceNic(mac=None, connected=False),
    )


def test_the_network_of_a_card(disk: Path) -> None:
    disk.with_suffix(".vmx").write_text(CARD + 'ethernet0.networkName = "VM Network"\n')
    assert [nic.network for nic in machine_of(disk).nics] == ["VM Network"]


def test_a_machine_of_another_name_that_has_the_disk(disk: Path) -> None:
    (disk.parent / "machine.vmx").write_text(CARD + 'scsi0:0.fileName = "web01.vmdk"\n')
    (disk.parent / "other.vmx").write_text(CARD + 'scsi0:0.fileName = "db01.vmdk"\n')
    assert [nic.slot for nic in machine_of(disk).nics] == [192]


def test_nothing_is_known_without_a_machine_of_the_disk(disk: Path) -> None:
    assert machine_of(disk) == bare(disk)
    (disk.parent / "other.vmx").write_text(CARD)
    assert machine_of(disk) == bare(disk)


@pytest.mark.parametrize(
    "named",
    [
        "system.vmdk",
        "/vmfs/volumes/5f1c2d3e-4b5a6978-1234-0050569f0001/web01/system.vmdk",
        "/vmfs/volumes/datastore1/x/System.vmdk",
        "../disks/system.vmdk",
        r"D:\Virtual Machines\web01\SYSTEM.VMDK",
        "system-000004.vmdk",
        "/vmfs/volumes/datastore1/x/system-000004.vmdk",
    ],
)
@pytest.mark.parametrize("file", ["web01.vmx", "WEB01.VMX"])
def test_a_disk_by_another_path_or_in_other_case(file: str, named: str, tmp_path: Path) -> None:
    disk = tmp_path / "system.vmdk"
    disk.write_bytes(DISK)
    (tmp_path / file).write_text(CARD + f'scsi0:0.fileName = "{named}"\n')
    machine = machine_of(disk)
    assert [nic.slot for nic in machine.nics] == [192]
    assert machine.disk_names == (named.replace("\\", "/").rpartition("/")[2],)
    assert machine.concerns == ()


def test_the_name_in_other_case_is_another_file_if_there_is_one(tmp_path: Path) -> None:
    for name in ("system.vmdk", "System.vmdk"):
        (tmp_path / name).write_bytes(DISK)
    (tmp_path / "web01.vmx").write_text(CARD + 'scsi0:0.fileName = "System.vmdk"\n')
    assert machine_of(tmp_path / "system.vmdk").nics == ()
    assert len(machine_of(tmp_path / "System.vmdk").nics) == 1


@pytest.mark.parametrize("near", ["disk.vmdk", "{folder}/disk.vmdk", "./disk.vmdk"])
def test_the_machine_that_names_this_file_counts_before_one_that_names_its_like(near: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk.vmdk"
    disk.write_bytes(DISK)
    (tmp_path / "far.vmx").write_text('scsi0:0.fileName = "/vmfs/volumes/a/far/disk.vmdk"\nmemsize = "1024"\n')
    (tmp_path / "near.vmx").write_text(f'scsi0:0.fileName = "{near.format(folder=tmp_path)}"\nmemsize = "2048"\n')
    assert machine_of(disk).memory == 2048


def test_names_in_the_code_page_of_the_host_and_with_escapes(tmp_path: Path) -> None:
    disk = tmp_path / 'B\u00fcro |"1".vmdk'
    disk.write_bytes(DISK)
    text = '.encoding = "windows-1252"\nscsi0:0.fileName = "B\u00fcro |7C|221|22.vmdk"\nmemsize = "2048"\n'
    (tmp_path / "office.vmx").write_bytes(text.encode("cp1252"))
    assert machine_of(disk).memory == 2048


def test_disks_of_the_machine_that_are_not_named_are_a_warning(disk: Path) -> None:
    text = CARD + 'scsi0:0.fileName = "web01-000002.vmdk"\nscsi0:1.fileName = "data.vmdk"\n'
    (disk.parent / "web01.vmx").write_text(text)
    (concern,) = machine_of(disk).concerns
    assert concern.code == "disks-left-out" and "data.vmdk" in concern.message and "000002" not in concern.message


def test_a_machine_with_other_disks_is_a_warning(disk: Path) -> None:
    (disk.parent / "other.vmx").write_text(CARD + 'scsi0:0.fileName = "db01.vmdk"\n')
    machine = machine_of(disk)
    assert machine.nics == () and machine.disk_names == ()
    (warning,) = machine.concerns
    assert "other.vmx" in warning.message and "web01.vmdk" in warning.message


def test_the_names_of_disks_are_bounded_and_printable(disk: Path) -> None:
    names = [*(f"{number}.vmdk" for number in range(1000)), "web|0A.vmdk", "x" * 300 + ".vmdk"]
    lines = [f'scsi0:{number}.fileName = "{name}"' for number, name in enumerate(names)]
    disk.with_suffix(".vmx").write_text("\n".join(reversed(lines)))
    found = machine_of(disk).disk_names
    assert len(found) == 256
    assert all(name.isprintable() and len(name) <= 255 for name in found)


def test_the_memory_that_all_files_take_is_bounded(disk: Path) -> None:
    """Before, 64 files of 1 MiB took several GiB."""
    text = "".join(f'{number:x}=""\n{number:x}.fileName="A.vmdk"\n' for number in range(24_000))
    for number in range(6):
        (disk.parent / f"{number}.vmx").write_text(text)
    disk.with_suffix(".vmx").write_text(CARD + text)
    tracemalloc.start()
    try:
        assert machine_of(disk).nics != ()
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_two_machines_of_one_disk_tell_nothing(disk: Path) -> None:
    (disk.parent / "web01.vmx").write_text(CARD)
    (disk.parent / "clone.vmx").write_text(CARD + 'scsi0:0.fileName = "web01.vmdk"\n')
    machine = machine_of(disk)
    assert machine.nics == ()
    assert "clone.vmx, web01.vmx all have the disk web01.vmdk" in machine.concerns[0].message


@pytest.mark.parametrize(
    "address", ["01:00:5e:00:00:01", "00:50:56:8a:10", '"><script>', "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"]
)
def test_an_address_that_no_card_has_is_none(disk: Path, address: str) -> None:
    disk.with_suffix(".vmx").write_text(CARD.replace("00:50:56:8A:10:01", address))
    assert machine_of(disk).nics == (SourceNic(mac=None, slot=192),)


def test_a_link_a_pipe_and_noise_are_no_machine(disk: Path, tmp_path: Path) -> None:
    link, pipe = disk.with_suffix(".vmx"), tmp_path / "pipe.vmx"
    link.symlink_to("/etc/passwd")
    os.mkfifo(pipe)
    (tmp_path / "noise.vmx").write_bytes(os.urandom(1 << 16))
    machine = machine_of(disk)
    assert machine.nics == ()
    assert len(machine.concerns) == 2
    assert "symbolic link" in machine.concerns[1].message


def test_a_disk_is_not_opened_again_for_its_machine(disk: Path) -> None:
    disk.with_suffix(".vmx").write_text('memSize = "4096"\n')
    with Sources(disk.parent) as sources:
        sources.open([LocalFile(path=disk)])
        disk.unlink()
        assert read_machine(Migration(vmdk=(disk,), vm_name="web01"), sources).memory == 4096


def test_memory_and_processors(disk: Path) -> None:
    disk.with_suffix(".vmx").write_text('memSize = "4096"\nnumvcpus = "4"\n')
    found = machine_of(disk)
    assert (found.memory, found.vcpus) == (4096, 4)


@pytest.mark.parametrize("text", ["", "0", "-1", "1e9", "99999999999999999999", "\u0664", "4096 MB"])
def test_what_is_no_sensible_number_is_unknown(text: str, disk: Path) -> None:
    disk.with_suffix(".vmx").write_text(f'memsize = "{text}"\nnumvcpus = "{text}"\n')
    found = machine_of(disk)
    assert (found.memory, found.vcpus) == (None, None)


def test_addresses_of_the_disks(disk: Path) -> None:
    text = (
        'scsi0.pciSlotNumber = "160"\nscsi0:3.fileName = "C:\\\\vm\\\\web01.vmdk"\nnvme1:2.fileName = "web01_1.vmdk"\n'
    )
    text += 'sata0:0.fileName = "web01.vmdk"\nsata0:0.present = "FALSE"\n'
    disk.with_suffix(".vmx").write_text(text)
    second = disk.with_name("web01_1.vmdk")
    third = disk.with_name("other.vmdk")
    for path in (second, third):
        path.write_bytes(DISK)
    machine = machine_of(disk, second, third)
    assert [one.address for one in machine.disks] == [
        DiskAddress(bus="scsi", controller=0, unit=3, slot=160),
        DiskAddress(bus="nvme", controller=1, unit=2),
        None,
    ]


def test_a_snapshot_has_the_address_of_its_chain(disk: Path) -> None:
    disk.with_suffix(".vmx").write_text('scsi0:1.fileName = "WEB01-000003.vmdk"\n')
    (found,) = machine_of(disk).disks
    assert found.address == DiskAddress(bus="scsi", controller=0, unit=1)


@pytest.mark.parametrize(
    ("line", "firmware"), [('firmware = "efi"', "uefi"), ('firmware = "bios"', "bios"), ("", "bios")]
)
def test_firmware(line: str, firmware: str, disk: Path) -> None:
    assert machine_of(disk).firmware is None
    disk.with_suffix(".vmx").write_text(f"{CARD}{line}\n")
    assert machine_of(disk).firmware == firmware
