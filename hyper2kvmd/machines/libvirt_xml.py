"""A machine from the XML of its libvirt domain (libvirt.org, Domain XML format), with its disks in files of this host.

The XML is untrusted, as are the paths in it: every disk is opened by the rights of the submitter and of the owner of
the XML.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import MigrationFailed, Unsafe
from hyper2kvmd.mac import normal_mac
from hyper2kvmd.machines.other_key import recognise
from hyper2kvmd.machines.ovf.elements import MAX_BYTES, Element, read_elements
from hyper2kvmd.machines.ovf.faults import shown
from hyper2kvmd.model.asked import DISKS_MAX, Migration
from hyper2kvmd.model.concerns import Concern, first_concerns
from hyper2kvmd.model.disks import LocalFile, NamedBy, SourceFormat
from hyper2kvmd.model.guest import Rtc
from hyper2kvmd.model.machine import MAX_MEMORY, MAX_VCPUS, UUID, Firmware, Machine, MachineDisk, SourceNic
from hyper2kvmd.units import size

MIB = 1 << 20
UNITS: Mapping[str, int] = {
    "b": 1, "bytes": 1, "kb": 1000, "k": 1 << 10, "kib": 1 << 10, "mb": 10**6, "m": MIB, "mib": MIB,
    "gb": 10**9, "g": 1 << 30, "gib": 1 << 30, "tb": 10**12, "t": 1 << 40, "tib": 1 << 40,
}  # fmt: skip
DIGITS = re.compile(r"[0-9]{1,18}")
FORMATS: Mapping[str, SourceFormat] = {
    "raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vpc": "vhd", "vhdx": "vhdx",
}  # fmt: skip
"""The formats of `<driver>`, in QEMU's words."""
NOT_THIS = "NAME"
"""Stands for the path in messages of the XML reader, which are about OVF descriptors."""
NOT_MIGRATED = {
    "hostdev": "a device of the host",
    "filesystem": "a shared directory",
    "redirdev": "a redirected USB device",
    "shmem": "shared memory",
}
NAMES_MAX = 255
PATH_MAX = 4095
"""Characters of a path (linux/limits.h, without its final NUL)."""
DEVICES_MAX = 64
"""Network cards or optical drives of one machine."""


class LibvirtXml:
    """A `MachineReader` for the key `libvirt_xml`."""

    def read(self, asked: Migration, sources: Sources) -> Machine:
        """Raises as `open_file` does, and MigrationFailed (`domain-xml-unreadable`, `domain-xml-disk`,
        `disks-too-many`) and Unsafe (`domain-xml-doctype`).
        """
        path = asked.libvirt_xml
        assert path is not None  # noqa: S101 - the reader was chosen by this key
        file = open_file(path, sources.mandate)
        try:
            other = recognise(file, "libvirt_xml")
            if other is not None:
                raise _unreadable(path, f"it is {other.what}", hint=other.remedy("libvirt_xml"))
            data, named_by = file.read(0, min(file.size, MAX_BYTES + 1)), os.fstat(file.fd).st_uid
        finally:
            os.close(file.fd)
        return machine_of(data, path, NamedBy(path=path, uid=named_by))


def machine_of(data: bytes, path: Path, named_by: NamedBy) -> Machine:
    """The machine that the text describes. Raises as `LibvirtXml.read` does."""
    domain = _domain(data, path)
    devices = _child(domain, "devices")
    disks = [one for one in _all(devices, "disk") if one.get("device") in (None, "disk", "lun")]
    if not disks:
        raise _disk_fault(path, "the domain has no disks", "Name the XML of a domain with disks in files")
    if len(disks) > DISKS_MAX:
        raise MigrationFailed(
            "disks-too-many",
            f"{path} has {len(disks)} disks, more than the {DISKS_MAX} of one machine",
            hint=f"Detach data disks until {DISKS_MAX} are left, and migrate the others with vmdk",
        )
    firmware = _firmware(domain)
    return Machine(
        disks=tuple(
            MachineDisk(at=LocalFile(path=_file_of(one, path), named_by=named_by), format=_format_of(one))
            for one in sorted(disks, key=_turn)
        ),
        name=_printable(_text(domain, "name")),
        memory=_memory(_child(domain, "memory")),
        vcpus=_current_vcpus(domain) or _vcpus(domain),
        cores_per_socket=_cores(domain),
        firmware=firmware,
        secure_boot=_secure_boot(domain) if firmware == "uefi" else None,
        tpm=any(one.get("version") != "1.2" for tpm in _all(devices, "tpm") for one in _all(tpm, "backend")),
        uuid=_uuid(_text(domain, "uuid")),
        serial=_printable(_serial(domain)),
        genid=_uuid(_text(domain, "genid")),
        rtc=_rtc(_child(domain, "clock")),
        cdroms=len(
            _few([one for one in _all(devices, "disk") if one.get("device") == "cdrom"], "optical drives", path)
        ),
        nics=tuple(map(_nic, _few([*_all(devices, "interface")], "network cards", path))),
        concerns=first_concerns([*_concerns(domain, devices, disks, path)]),
    )


def _domain(data: bytes, path: Path) -> Element:
    try:
        root = read_elements(data, NOT_THIS)
    except Unsafe as unsafe:
        raise Unsafe(
            "domain-xml-doctype",
            f"{path}: it has a document type (<!DOCTYPE>), which can define entities and name other files",
            hint="Remove the document type: libvirt writes none. Find out who added it",
        ) from unsafe
    except MigrationFailed as failure:
        fact = failure.message.removeprefix(f"{NOT_THIS} is not an OVF descriptor: ")
        raise _unreadable(path, fact.replace(f"{NOT_THIS} has", "it has", 1)) from failure
    if root.name != "domain" or root.vocabulary != "none":
        raise _unreadable(path, f"it begins with the element {shown(root.name)}")
    return root


def _unreadable(
    path: Path, fact: str, hint: str = "Write it again with `virsh dumpxml --inactive DOMAIN`"
) -> MigrationFailed:
    return MigrationFailed("domain-xml-unreadable", f"{path} is not the XML of a libvirt domain: {fact}", hint=hint)


def _few(found: list[Element], what: str, path: Path) -> list[Element]:
    if len(found) <= DEVICES_MAX:
        return found
    raise MigrationFailed(
        "domain-xml-unreadable",
        f"{path}: the domain has {len(found)} {what}, more than {DEVICES_MAX}",
        hint=f"Remove {what} from the XML until {DEVICES_MAX} are left",
    )


def _disk_fault(path: Path, fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("domain-xml-disk", f"{path}: {fact}", hint=hint)


def _file_of(disk: Element, path: Path) -> Path:
    target = _child(disk, "target")
    name = shown("" if target is None else target.get("dev") or "")
    if disk.get("type") not in (None, "file"):
        fact = f"the disk {name} is of the type {shown(disk.get('type') or '')}, and only files can be read"
        raise _disk_fault(path, fact, "Copy the disk to a file (`qemu-img convert`), and name it with vmdk")
    if _child(disk, "encryption") is not None:
        raise _disk_fault(path, f"the disk {name} is encrypted by QEMU", "Decrypt it with `qemu-img convert` first")
    source = _child(disk, "source")
    file = None if source is None else source.get("file")
    if not file or not file.startswith("/") or not file.isprintable() or len(file) > PATH_MAX:
        fact = f"the disk {name} has no absolute path of a file" + (f", but {shown(file)}" if file else "")
        raise _disk_fault(path, fact, "Correct the path in the XML, or name the disks with vmdk")
    return Path(file)


def _format_of(disk: Element) -> SourceFormat | None:
    driver = _child(disk, "driver")
    return None if driver is None else FORMATS.get(driver.get("type") or "")


def _turn(disk: Element) -> int:
    """Disks with a place in the boot order come first. The others keep their order."""
    boot = _child(disk, "boot")
    return _number("" if boot is None else boot.get("order") or "", 10**6) or 10**6 + 1


def _firmware(domain: Element) -> Firmware:
    """Without a loader libvirt starts SeaBIOS."""
    loader = next(_all(_child(domain, "os"), "loader"), None)
    os_element = _child(domain, "os")
    if os_element is not None and os_element.get("firmware") == "efi":
        return "uefi"
    return "uefi" if loader is not None and loader.get("type") == "pflash" else "bios"


def _secure_boot(domain: Element) -> bool:
    os_element = _child(domain, "os")
    features = _all(_child(os_element, "firmware"), "feature")
    asked = {one.get("name"): one.get("enabled") == "yes" for one in features}
    if "enrolled-keys" in asked or "secure-boot" in asked:
        return asked.get("secure-boot", True) and asked.get("enrolled-keys", True)
    return any(one.get("secure") == "yes" for one in _all(os_element, "loader"))


def _vcpus(domain: Element) -> int | None:
    return _number(_text(domain, "vcpu"), MAX_VCPUS)


def _current_vcpus(domain: Element) -> int | None:
    """Those that are there at the start, where others can be added; None without such a number."""
    vcpu = _child(domain, "vcpu")
    current = None if vcpu is None else _number(vcpu.get("current") or "", MAX_VCPUS)
    return current if current is not None and current < (_vcpus(domain) or 0) else None


def _memory(element: Element | None) -> int | None:
    """In MiB, rounded up."""
    if element is None:
        return None
    unit = UNITS.get((element.get("unit") or "KiB").lower())
    amount = _number(element.text, 10**18)
    if unit is None or amount is None:
        return None
    mib = -(-amount * unit // MIB)
    return mib if 1 <= mib <= MAX_MEMORY else None


def _cores(domain: Element) -> int | None:
    """All threads of a socket."""
    topology = next(_all(_child(domain, "cpu"), "topology"), None)
    if topology is None:
        return None
    product = 1
    for name in ("dies", "clusters", "cores", "threads"):
        product *= _number(topology.get(name) or "1", MAX_VCPUS) or 1
    return product if product <= MAX_VCPUS else None


def _serial(domain: Element) -> str:
    entries = _all(next(_all(_child(domain, "sysinfo"), "system"), None), "entry")
    return next((one.text for one in entries if one.get("name") == "serial"), "")


def _rtc(clock: Element | None) -> Rtc | None:
    """None for a time zone of its own. An adjustment is against UTC, unless its basis is the local time."""
    offset = None if clock is None else clock.get("offset")
    if clock is not None and offset == "variable":
        offset = clock.get("basis") or "utc"
    known: Mapping[str, Rtc] = {"utc": "utc", "localtime": "localtime"}
    return known.get(offset or "")


def _nic(interface: Element) -> SourceNic:
    mac, source = _child(interface, "mac"), _child(interface, "source")
    names = [] if source is None else [source.get(key) for key in ("network", "bridge", "dev")]
    return SourceNic(
        mac=None if mac is None else normal_mac(mac.get("address") or ""),
        network=_printable(next(filter(None, names), "") or ""),
        connected=all(link.get("state") != "down" for link in _all(interface, "link")),
    )


def _concerns(domain: Element, devices: Element | None, disks: Sequence[Element], path: Path) -> Iterator[Concern]:
    if domain.get("id") is not None:
        yield Concern(
            code="domain-running",
            message=f"{path} was written while the domain ran: a disk that changes while it is read cannot be used",
            hint="Shut the domain down, and write the XML with `virsh dumpxml --inactive`",
        )
    yield from _about_hardware(domain, path)
    for disk in disks:
        if _child(disk, "shareable") is not None:
            source = _child(disk, "source")
            file = "" if source is None else source.get("file") or ""
            yield Concern(
                code="disk-shared",
                message=f"{path}: other machines can use the disk {shown(file)} at once, and the new machine gets a"
                " copy of its own",
                hint="Shut down all of them before the migration",
            )
    serials = [shown(one.text) for disk in disks for one in _all(disk, "serial") if one.text]
    if serials:
        yield Concern(
            code="disk-serial-lost",
            message=f"{path}: its disks have serial numbers ({', '.join(serials)}), and those of the new machine have"
            " none",
            hint="Check programs of the guest that name a disk by its serial number, as in /dev/disk/by-id",
            level="information",
        )
    if any(one.get("device") == "floppy" for one in _all(devices, "disk")):
        fact = f"{path} has a floppy drive, which the new machine does not have"
        yield Concern(
            code="floppy-not-migrated",
            message=fact,
            hint="Copy files that the guest needs from its floppy disks to its hard disk before the migration",
            level="information",
        )
    for kind, what in NOT_MIGRATED.items():
        if any(True for _ in _all(devices, kind)):
            yield Concern(
                code="device-not-migrated",
                message=f"{path} has {what} (<{kind}>), which the new machine does not get",
                hint="Add one to the new machine with `virsh edit`, if the guest needs it",
            )


def _about_hardware(domain: Element, path: Path) -> Iterator[Concern]:
    current, most = _memory(_child(domain, "currentMemory")), _memory(_child(domain, "memory"))
    if (vcpus := _current_vcpus(domain)) is not None:
        yield Concern(
            code="maximum-not-kept",
            message=f"{path}: the domain starts with {vcpus} of at most {_vcpus(domain)} CPUs, and the new machine has"
            f" {vcpus}",
            hint="Set vcpus, if it should have more",
            level="information",
        )
    if current is not None and most is not None and current < most:
        yield Concern(
            code="maximum-not-kept",
            message=f"{path}: the domain starts with {size(current * MIB)} of {size(most * MIB)} of memory, and the new"
            f" machine has {size(most * MIB)}",
            hint="Set memory, if it should have less",
            level="information",
        )
    clock = _child(domain, "clock")
    offset = None if clock is None else clock.get("offset")
    if offset in ("timezone", "variable"):
        becomes = "local time" if _rtc(clock) == "localtime" else "UTC"
        yield Concern(
            code="clock-not-kept",
            message=f"{path}: the domain's clock has the offset '{offset}', and the new machine's is in {becomes},"
            " unless its Windows expects another one",
            hint="Compare the time in the guest after the first start",
            level="information",
        )


def _all(parent: Element | None, name: str) -> Iterator[Element]:
    children = () if parent is None else parent.children
    return (one for one in children if (one.vocabulary, one.name) == ("none", name))


def _child(parent: Element | None, name: str) -> Element | None:
    return next(_all(parent, name), None)


def _text(parent: Element, name: str) -> str:
    found = _child(parent, name)
    return "" if found is None else found.text


def _number(text: str, most: int) -> int | None:
    value = int(text) if DIGITS.fullmatch(text) else 0
    return value if 1 <= value <= most else None


def _uuid(text: str) -> str | None:
    return text.lower() if re.fullmatch(UUID, text.lower()) else None


def _printable(text: str) -> str | None:
    text = text[:NAMES_MAX]
    return text if text and text.isprintable() else None
