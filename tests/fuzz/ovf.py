"""Damages OVF descriptors: each must become a machine or a plain refusal, soon and in little memory.

`python -m tests.fuzz.ovf --count 100000`; what it finds it prints with the seed that makes it again: `--seed N
--count 1`.
"""

from __future__ import annotations

import random
import re
import sys

from hyper2kvmd.errors import Failure
from hyper2kvmd.machines.ovf.described import Described, DescribedDisk
from hyper2kvmd.machines.ovf.envelope import read_envelope, systems
from hyper2kvmd.machines.ovf.hrefs import files_of
from hyper2kvmd.model.asked import DISKS_MAX
from hyper2kvmd.model.machine import MAX_MEMORY, MAX_VCPUS
from tests.fuzz import harness
from tests.support.hostile_ovf import HOSTILE
from tests.support.ovf_texts import (
    VERSIONS,
    Item,
    System,
    Version,
    collection,
    controller,
    cpu,
    device,
    disk,
    envelope,
    memory,
    nic,
    section,
    setting,
)

LARGEST_SAMPLE = 16 << 10
WORDS = (
    "<Item>", "</Item>", "<Disk ovf:diskId='d1'/>", "<File ovf:id='f1' ovf:href='../x'/>", "<VirtualSystem>", "<a>",
    "</a>", "<!--", "-->", "<![CDATA[", "]]>", "<?x y?>", "<!DOCTYPE a>", "&lt;", "&#0;", "&#x10ffff;", "&e;", "'", '"',
    "=", "/>", " ovf:configuration='small'", " xmlns:ovf='urn:x'", " xmlns=''", "ovf:", "rasd:", "\0", "\n", "\x1b",
    "\u202e", "\ufeff",
)  # fmt: skip
VALUES = (
    "", "0", "1", "3", "4", "5", "6", "10", "15", "16", "17", "19", "20", "34", "32768", "-1", "1.0", "4294967296",
    "999999999999999999", "1e9", "${size}", "${}", "byte", "byte * 2^20", "byte*2^99", "GigaBytes", "furlong", "gzip",
    "bzip2", "xz", "small", "large", "small large", "min", "max", "normal", "true", "false", "d1", "d2", "d3", "d4",
    "f1", "f2", "ovf:/disk/d1", "/disk/d3", "ovf:/file/f2", "disk/d4", "../x", "%2e%2e%2f", "%00", "http://host/x",
    "a%24.vmdk", "web01", "db01", "20", "21", "efi", "bios", "00:50:56:00:00:00", "x\ty", "\u202e", "vmware.vtpm",
    "x" * 300,
)  # fmt: skip
NAMES = (
    "Item", "Disk", "File", "VirtualSystem", "VirtualSystemCollection", "VirtualHardwareSection", "Configuration", "a",
    "rasd:HostResource", "rasd:Parent", "rasd:ResourceType", "rasd:VirtualQuantity", "rasd:InstanceID", "vmw:Config",
)  # fmt: skip
VALUE = re.compile(r"(?<==)(['\"])([^'\"<>]*)(?=\1)|(?<=>)()([^<>]+)(?=</)")
LEAF = re.compile(r"<([\w:]+)(?:\s[^<>]*)?(?:/>|>[^<>]*</\1>)")


def rich(version: Version) -> bytes:
    """A descriptor with a little of everything that is read."""
    sizes = section(
        version, "DeploymentOptionSection", "<Configuration ovf:id='small'/><Configuration ovf:id='large'/>"
    )
    values = "<Property ovf:key='size' ovf:value='4'><Value ovf:configuration='large' ovf:value='8'/></Property>"
    items = (
        cpu("1"),
        cpu("4", configuration="large"),
        memory("512", "MegaBytes", bound="min"),
        memory("2", "byte * 2^30"),
        controller("11", address="1"),
        controller("10"),
        controller("12", "20", subtype="vmware.nvme.controller"),
        disk("20", "ovf:/disk/d1", "11", "0"),
        disk("21", "/disk/d2", "10", "1"),
        disk("22", "ovf:/disk/d3", "12", "0"),
        nic("30", "VM Network", "00:50:56:01:02:03", AddressOnParent="7"),
        Item(nic("31").fields, tag="EthernetPortItem", inside=setting("slotInfo.pciSlotNumber", "192")),
        device("15", HostResource="ovf:/file/f3"),
        device("1", "vmware.vtpm"),
        device("14"),
    )
    settings = setting("firmware", "efi") + setting("nvram", "ovf:/file/f3", "ExtraConfig")
    settings += setting("bootOptions.efiSecureBootEnabled", "true") + setting("uuid.bios", "56 4d" + " 00" * 14)
    virtualbox = "<vbox:Machine uuid='{}'><Hardware><Firmware type='EFI'/></Hardware></vbox:Machine>"
    boot = "<vmw:BootOrderSection vmw:instanceId='21' vmw:type='disk'/>"
    product = section(version, "ProductSection", values)
    one = System(items, name="Web Server", settings=settings, sections=product + boot + virtualbox)
    files = [
        {"id_": "f1", "href": "a%24.vmdk", "size": "9000", "chunkSize": "4000", "compression": "gzip"},
        {"id_": "f2", "href": "b.vmdk"},
        {"id_": "f3", "href": "c.iso"},
    ]
    disks = [
        {
            "diskId": "d1",
            "fileRef": "f1",
            "capacity": "16",
            "capacityAllocationUnits": "byte * 2^30",
            "parentRef": "d4",
        },
        {"diskId": "d2", "fileRef": "f2", "capacity": "1024"},
        {"diskId": "d3", "capacity": "${size}", "capacityAllocationUnits": "GigaBytes"},
        {"diskId": "d4", "fileRef": "f2"},
    ]
    both = collection(version, one, System(id="db01"))
    return envelope(both, version=version, files=files, disks=disks, sections=sizes)


def samples() -> tuple[str, ...]:
    small = (text for text, code in HOSTILE.values() if len(text) < LARGEST_SAMPLE and code != "ovf-doctype")
    every = (*(rich(version) for version in VERSIONS * 4), *(envelope(version=version) for version in VERSIONS), *small)
    return tuple(text.decode() for text in every)


def damage(text: str, corpus: tuple[str, ...], pick: random.Random) -> str:
    """Most damage leaves the text well-formed."""
    for _ in range(pick.choice((1, 1, 2, 4, 8))):
        match pick.randrange(8):
            case 0 | 1 | 2 | 3:
                text = with_value(text, pick.choice(VALUES), pick)
            case 4 | 5:
                text = with_leaf(text, pick)
            case 6:
                text = with_value(text, str(pick.choice(harness.NUMBERS)), pick)
            case 7 if pick.random() < 0.3:
                text = torn(text, corpus, pick)
    return text


def with_value(text: str, value: str, pick: random.Random) -> str:
    """Another value of an attribute or text of an element."""
    found = list(VALUE.finditer(text))
    if not found:
        return text
    one = pick.choice(found)
    start = one.start(2 if one[1] else 4)
    return text[:start] + value + text[one.end() :]


def with_leaf(text: str, pick: random.Random) -> str:
    """An element without others inside removed, repeated, moved behind another one, or with its name changed."""
    found = list(LEAF.finditer(text))
    if not found:
        return text
    one, other = pick.choice(found), pick.choice(found)
    match pick.randrange(4):
        case 0:
            return text[: one.start()] + text[one.end() :]
        case 1:
            return text[: one.end()] + one[0] * pick.choice((1, 2, 50)) + text[one.end() :]
        case 2:
            return text[: other.end()] + one[0] + text[other.end() :]
        case _:
            name = pick.choice(NAMES)
            return text[: one.start()] + one[0].replace(one[1], name) + text[one.end() :]


def torn(text: str, corpus: tuple[str, ...], pick: random.Random) -> str:
    at = pick.randrange(len(text) + 1)
    stop = at + pick.choice((1, 2, 8, 64, 400))
    match pick.randrange(4):
        case 0:
            return text[:at] + pick.choice(WORDS) + text[at:]
        case 1:
            return text[:at] + text[stop:]
        case 2:
            other = pick.choice(corpus)
            begin = pick.randrange(len(other))
            return text[:at] + other[begin : begin + stop - at] + text[stop:]
        case _:
            return text[:at] + text[at:stop] * pick.choice((2, 3, 50)) + text[stop:]


def attempt(seed: int, corpus: tuple[str, ...]) -> str:
    pick = random.Random(seed)  # noqa: S311
    text = damage(pick.choice(corpus), corpus, pick)
    data = text.encode(pick.choice(("utf-8", "utf-8", "utf-16", "utf-8-sig")), "surrogatepass")
    name = pick.choice(("web01", "db01", "Web-Server", "other"))
    try:
        described = read_envelope(
            data, name="x.ovf", configuration=pick.choice((None, None, "small", "large")), system=name
        )
        require_possible(described)
        assert systems(data, name="x.ovf")
    except Failure as refusal:
        plain = refusal.message.isprintable() and refusal.hint.isprintable()
        if not (plain and len(refusal.message) < 4000 and refusal.code.startswith(("ovf-", "disks-"))):
            raise ValueError(f"not one plain line: {refusal!r}") from refusal
        return refusal.code
    return "read"


def require_possible(described: Described) -> None:
    """Raise AssertionError unless all values are possible ones. Raises as `files_of` does."""
    machine = described.machine
    assert machine.memory is None or 0 < machine.memory <= MAX_MEMORY
    assert machine.vcpus is None or 0 < machine.vcpus <= MAX_VCPUS
    assert machine.cores_per_socket is None or (machine.vcpus or 0) % machine.cores_per_socket == 0
    assert 0 < len(described.disks) <= DISKS_MAX
    assert all(len(str(one)) < 1000 and one.message.isprintable() for one in machine.concerns)
    addresses = [one.address for one in described.disks if one.address]
    assert len(addresses) == len(set(addresses))
    for one in described.disks:
        disk: DescribedDisk | None = one
        while disk is not None:
            assert disk.hrefs or (disk.capacity and disk.capacity % 512 == 0)
            names = files_of(disk, lambda _: False, "x.ovf") if disk.hrefs else ()
            assert not any("/" in file or file in ("", ".", "..") or "\0" in file for file in names)
            disk = disk.parent


def fuzz(seed: int, count: int) -> harness.Outcome:
    corpus = samples()
    return harness.fuzz(lambda number, _: attempt(number, corpus), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=100_000))
