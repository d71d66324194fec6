"""Writes OVF descriptors in the dialects of their versions and exporters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from hyper2kvmd.machines.ovf.described import Described
from hyper2kvmd.machines.ovf.envelope import read_envelope

Version = Literal["0.9", "1", "2", "bare", "unbound"]
"""`bare` has neither namespaces nor prefixes, `unbound` has prefixes without namespaces."""
VERSIONS: tuple[Version, ...] = ("0.9", "1", "2", "bare", "unbound")
GIB = 1 << 30
OVF = {
    "0.9": "http://www.vmware.com/schema/ovf/1/envelope",
    "1": "http://schemas.dmtf.org/ovf/envelope/1",
    "2": "http://schemas.dmtf.org/ovf/envelope/2",
}
CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_"
PREFIXES = {
    "rasd": f"{CIM}ResourceAllocationSettingData",
    "vssd": f"{CIM}VirtualSystemSettingData",
    "epasd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_EthernetPortAllocationSettingData.xsd",
    "sasd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_StorageAllocationSettingData.xsd",
    "vmw": "http://www.vmware.com/schema/ovf",
    "vbox": "http://www.virtualbox.org/ovf/machine",
    "xsi": "http://www.w3.org/2001/XMLSchema-instance",
}
OF_TAG = {"Item": "rasd", "StorageItem": "sasd", "EthernetPortItem": "epasd"}
Fields = Mapping[str, str | Sequence[str]]


def attributes(version: Version, prefix: str = "ovf", **values: str) -> str:
    """Attributes with the version's prefix; an underscore at the end of a name is not part of it."""
    before = "" if version == "bare" and prefix == "ovf" else f"{prefix}:"
    return "".join(f" {before}{name.rstrip('_')}={quoteattr(value)}" for name, value in values.items())


@dataclass(frozen=True)
class Item:
    """A device: fields of CIM without their prefix, `Parent`, and what is around them."""

    fields: Fields
    tag: str = "Item"
    inside: str = ""
    """More content, such as vmw:Config."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Its attributes: bound, configuration, required."""

    def text(self, version: Version) -> str:
        tag = self.tag if version == "2" else "Item"
        prefix = "" if version == "bare" else f"{OF_TAG[tag]}:"
        content = "".join(
            f"<{prefix}{name}>{escape(value)}</{prefix}{name}>"
            for name, values in self.fields.items()
            for value in ([values] if isinstance(values, str) else values)
        )
        if version == "0.9":
            content = content.replace("InstanceID>", "InstanceId>").replace("ElementName>", "Caption>")
        return f"<{tag}{attributes(version, **self.about)}>{content}{self.inside}</{tag}>"


def cpu(count: str = "2", **about: str) -> Item:
    return Item({"ElementName": "CPUs", "InstanceID": "1", "ResourceType": "3", "VirtualQuantity": count}, about=about)


def memory(quantity: str = "2048", unit: str | None = "byte * 2^20", **about: str) -> Item:
    units = {} if unit is None else {"AllocationUnits": unit}
    fields = {"ElementName": "RAM", "InstanceID": "2", "ResourceType": "4", "VirtualQuantity": quantity}
    return Item({**units, **fields}, about=about)


def controller(instance: str, kind: str = "6", address: str | None = "0", subtype: str = "lsilogic") -> Item:
    placed = {} if address is None else {"Address": address}
    fields = {"ElementName": f"controller {instance}", "InstanceID": instance, "ResourceType": kind}
    return Item({**placed, **fields, "ResourceSubType": subtype})


def disk(
    instance: str,
    resource: str | None = "ovf:/disk/d1",
    parent: str | None = "3",
    unit: str | None = "0",
    kind: str = "17",
) -> Item:
    given = {"HostResource": resource, "Parent": parent, "AddressOnParent": unit}
    placed = {name: value for name, value in given.items() if value is not None}
    fields = {"ElementName": f"disk {instance}", "InstanceID": instance, "ResourceType": kind}
    return Item({**fields, **placed}, tag="StorageItem")


def nic(instance: str, network: str | None = "VM Network", mac: str | None = None, **fields: str) -> Item:
    given = {"Connection": network, "Address": mac, **fields}
    placed = {name: value for name, value in given.items() if value is not None}
    named = {"ElementName": f"card {instance}", "InstanceID": instance, "ResourceType": "10"}
    return Item({**named, **placed}, tag="EthernetPortItem")


def device(kind: str | None, subtype: str = "", required: str = "true", **fields: str) -> Item:
    typed = {} if kind is None else {"ResourceType": kind}
    named = {"ElementName": "thing", "InstanceID": "90", **({"ResourceSubType": subtype} if subtype else {})}
    return Item({**named, **typed, **fields}, about={"required": required})


def setting(key: str, value: str, tag: str = "Config") -> str:
    return f"<vmw:{tag} ovf:required='false' vmw:key={quoteattr(key)} vmw:value={quoteattr(value)}/>"


@dataclass(frozen=True)
class System:
    items: Sequence[Item] = (cpu(), memory(), controller("3"), disk("4"))
    id: str | None = "web01"
    name: str | None = None
    settings: str = ""
    """At the end of the virtual hardware."""
    sections: str = ""
    """Around the virtual hardware."""
    system: str = ""
    """In System of the virtual hardware."""

    def text(self, version: Version) -> str:
        identified = "" if self.id is None else attributes(version, id_=self.id)
        named = "" if self.name is None else f"<Name>{escape(self.name)}</Name>"
        about = f"<System>{self.system}</System>" if self.system else ""
        items = "".join(item.text(version) for item in self.items)
        hardware = section(version, "VirtualHardwareSection", f"<Info/>{about}{items}{self.settings}")
        tag = "Content xsi:type='ovf:VirtualSystem_Type'" if version == "0.9" else "VirtualSystem"
        return f"<{tag}{identified}><Info>one</Info>{named}{self.sections}{hardware}</{tag.split()[0]}>"


def section(version: Version, kind: str, content: str) -> str:
    tag = f"Section xsi:type='ovf:{kind}_Type'" if version == "0.9" else kind
    return f"<{tag}>{content}</{tag.split()[0]}>"


def collection(version: Version, *content: System | str, id_: str = "app") -> str:
    tag = "Content xsi:type='ovf:VirtualSystemCollection_Type'" if version == "0.9" else "VirtualSystemCollection"
    inside = "".join(one if isinstance(one, str) else one.text(version) for one in content)
    return f"<{tag}{attributes(version, id_=id_)}>{inside}</{tag.split()[0]}>"


FILE = {"id_": "f1", "href": "web01-disk1.vmdk"}
DISK = {"diskId": "d1", "fileRef": "f1", "capacity": "16", "capacityAllocationUnits": "byte * 2^30"}


def envelope(
    *systems: System | str,
    version: Version = "1",
    files: Sequence[Mapping[str, str]] = (FILE,),
    disks: Sequence[Mapping[str, str]] = (DISK,),
    sections: str = "",
    declaration: str = '<?xml version="1.0" encoding="UTF-8"?>',
) -> bytes:
    """A whole descriptor; `sections` comes before the systems."""
    uri = OVF.get(version)
    own = f' xmlns="{uri}" xmlns:ovf="{uri}"' if uri else ""
    bound = "".join(f' xmlns:{prefix}="{one}"' for prefix, one in PREFIXES.items()) if version != "unbound" else ""
    if version == "bare":
        bound += f' xmlns:ovf="{OVF["1"]}"'
    named = "".join(f"<File{attributes(version, **file)}/>" for file in files)
    stored = "".join(f"<Disk{attributes(version, **one)}/>" for one in disks)
    inside = "".join(one if isinstance(one, str) else one.text(version) for one in systems or (System(),))
    content = f"<References>{named}</References>{section(version, 'DiskSection', stored)}{sections}{inside}"
    return f"{declaration}\n<Envelope{own}{bound}>{content}</Envelope>".encode()


def two_disks(*items: Item, files: int = 2) -> bytes:
    """A descriptor of one machine with the items and the disks d1, d2 and so on, of 1 GiB, 2 GiB and so on."""
    numbers = range(1, files + 1)
    return envelope(
        System((cpu(), memory(), *items)),
        files=[{"id_": f"f{n}", "href": f"disk{n}.vmdk"} for n in numbers],
        disks=[{"diskId": f"d{n}", "fileRef": f"f{n}", "capacity": str(n * GIB)} for n in numbers],
    )


def read(
    text: bytes,
    configuration: str | None = None,
    system: str | None = None,
    overridden: frozenset[str] = frozenset(),
) -> Described:
    return read_envelope(text, name="web01.ovf", configuration=configuration, system=system, overridden=overridden)
