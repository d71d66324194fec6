"""Damages a .vmx and its .vmsd: they must become a machine or one plain failure, soon and in little memory.

No disk may be outside of the directory that is allowed, and no setting may change when it is written and read again.
`python -m tests.fuzz.vmx --count 100000`; what it finds it prints with the seed that makes it again: `--seed N
--count 1`.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.machines.vmx.settings import parse_settings
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import LocalFile
from hyper2kvmd.model.machine import Machine
from tests.fuzz import harness
from tests.support.vmx import DISK, QUIET, text

DISKS = ("web01.vmdk", "web01-000001.vmdk", "data.vmdk", "Data2.vmdk", "store/web01/data.vmdk")
MACHINE = {
    **QUIET,
    "displayName": "web |22 01",
    "guestOS": "debian12-64",
    "memSize": "4096",
    "numvcpus": "4",
    "cpuid.coresPerSocket": "2",
    "firmware": "efi",
    "uefi.secureBoot.enabled": "TRUE",
    "vtpm.present": "TRUE",
    "uuid.bios": "56 4d 9b ee ac d9 b4 e7-c8 f0 ea 48 dd c1 1a 2d",
    "vm.genid": "-8536691797830587195",
    "vm.genidX": "-1723453263670062919",
    "scsi0.present": "TRUE",
    "scsi0.virtualDev": "pvscsi",
    "scsi0.pciSlotNumber": "160",
    "scsi0:0.present": "TRUE",
    "scsi0:0.fileName": "web01-000001.vmdk",
    "scsi0:10.present": "TRUE",
    "scsi0:10.fileName": "/vmfs/volumes/ssd-1/web01/data.vmdk",
    "nvme0:0.present": "TRUE",
    "nvme0:0.fileName": r"C:\\VM\\DATA2.VMDK",
    "sata0:0.present": "TRUE",
    "sata0:0.deviceType": "cdrom-image",
    "sata0:0.fileName": "/vmfs/volumes/iso/x.iso",
    "ethernet0.present": "TRUE",
    "ethernet0.addressType": "static",
    "ethernet0.address": "00:50:56:01:02:03",
    "ethernet0.networkName": "VM Network",
    "pciPassthru0.present": "TRUE",
    "ctkEnabled": "TRUE",
}
SNAPSHOTS = {
    f"snapshot{number}.{key}": value
    for number in (0, 1, 10)
    for key, value in {
        "uid": str(number + 1),
        "displayName": f"state {number}",
        "disk0.fileName": "web01.vmdk",
        "disk0.node": "scsi0:0",
        "disk1.fileName": "data.vmdk",
        "disk1.node": "scsi0:10",
    }.items()
}
WORDS = (
    '"', '""', "|22", "|0A", "|00", "|zz", "|", "=", " = ", "#", "\n", "\r\n", "\r", "\0", "\ufeff", "\u202e", "\u0661",
    "TRUE", "FALSE", "-1", "0", "7", "99999999999999999999", "present", "fileName", "scsi0:0.", "scsi9:9.", "ide1:0.",
    "nvme0:1.present", "ethernet9.", "/etc/passwd", "../../../../etc/passwd", "..", "/", "\\", "/vmfs/volumes/ssd-1/",
    "/vmfs/volumes/ssd-1/../../", "C:\\", "\\\\server\\", ".vmdk", ".iso", "encryption.keySafe", "checkpoint.vmState",
    "bios.hddOrder", "nvme0:0,scsi0:10", "snapshot3.", "state 0", ".encoding = \"UTF-7\"\n", ".encoding = \"utf-16\"\n",
    ".encoding = \"windows-1252\"\n", "x" * 300,
)  # fmt: skip
ADDRESSES = re.compile(rb"hddorder", re.IGNORECASE)
BUSES = ("scsi", "nvme", "sata", "ide")


def damage(data: bytes, pick: random.Random) -> bytes:
    for _ in range(pick.choice((1, 1, 2, 4, 8, 16))):
        at = pick.randrange(len(data) + 1)
        match pick.randrange(6):
            case 0 | 1:
                data = data[:at] + pick.choice(WORDS).encode() + data[at:]
            case 2:
                data = data[:at] + data[at + pick.choice((1, 2, 8, 64)) :]
            case 3:
                data = data[:at] + bytes((pick.randrange(256),)) + data[at + 1 :]
            case 4:
                other = pick.randrange(len(data) + 1)
                data = data[:at] + data[other : other + pick.choice((1, 16, 200))] + data[at:]
            case 5:
                stop = at + pick.choice((1, 8, 64))
                data = data[:at] + data[at:stop] * pick.choice((2, 3, 400)) + data[stop:]
    return data


def shuffled(settings: dict[str, str], pick: random.Random) -> bytes:
    lines = list(settings.items())
    pick.shuffle(lines)
    return text(dict(lines)).encode()


def attempt(seed: int, folder: Path) -> str:
    pick = random.Random(seed)  # noqa: S311
    if not (folder / DISKS[-1]).exists():
        for name in DISKS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(DISK)
    vmx = folder / "web01.vmx"
    settings, snapshots = shuffled(MACHINE, pick), shuffled(SNAPSHOTS, pick)
    wanted = pick.choice((None, None, "state 0", "state 10", "1"))
    vmx.write_bytes(damage(settings, pick) if wanted is None or pick.randrange(2) else settings)
    vmx.with_suffix(".vmsd").write_bytes(damage(snapshots, pick) if wanted is not None else snapshots)
    same(vmx.read_bytes())
    asked = Migration(vmx=vmx, vm_name="x", snapshot=wanted, datastore_map={"ssd-1": folder / "store"})
    try:
        with Sources(folder, Mandate(folders=(folder,))) as sources:
            machine = read_machine(asked, sources)
    except Failure as failure:
        if not (str(failure).isprintable() and len(str(failure)) < 20_000):
            raise ValueError(f"not one plain line: {failure!r}") from failure
        return failure.code
    sound(machine, folder, ordered=not ADDRESSES.search(vmx.read_bytes()))
    return "a machine" if wanted is None else "a snapshot"


def same(data: bytes) -> None:
    """Raise AssertionError if settings change when they are written and read again."""
    found = parse_settings(data)
    values = {key: value for key, value in found.values.items() if value.isprintable()}
    values = {key: value for key, value in values.items() if not key.endswith("encoding")}
    written = text({key: re.sub(r'["|#]', lambda one: f"|{ord(one[0]):02X}", value) for key, value in values.items()})
    again = parse_settings(written.encode())
    assert dict(again.values) == values
    assert again.repeated == ()


def sound(machine: Machine, folder: Path, *, ordered: bool) -> None:
    """Raise AssertionError unless the machine can be what the text describes."""
    paths = [disk.at.path for disk in machine.disks if isinstance(disk.at, LocalFile)]
    assert 0 < len(paths) == len(machine.disks) == len(set(paths))
    assert all(path.resolve().is_relative_to(folder.resolve()) and path.is_file() for path in paths)
    assert all(str(concern).isprintable() for concern in machine.concerns)
    for shown in (machine.name, machine.serial, machine.os_type, *(nic.network for nic in machine.nics)):
        assert shown is None or (shown.isprintable() and shown)
    places = [disk.address for disk in machine.disks if disk.address is not None]
    numbers = [(BUSES.index(one.bus), one.controller, one.unit) for one in places]
    assert len(set(numbers)) == len(numbers)
    assert not ordered or numbers == sorted(numbers)


def fuzz(seed: int, count: int) -> harness.Outcome:
    return harness.fuzz(attempt, seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=100_000))
