"""OVF packages for tests: a descriptor, its files and their manifest, in archives of every kind."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.machines.ova import Ova
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.machine import Machine
from tests.support.archives import Entry, tar
from tests.support.vmdk_images import descriptor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}
ENVELOPE = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
 <References>{files}</References>
 <DiskSection><Info>disks</Info>{disks}</DiskSection>
 <VirtualSystem ovf:id="{name}"><Info>a machine</Info><Name>{name}</Name>
  <VirtualHardwareSection><Info>hardware</Info>
   <Item><rasd:ElementName>2 CPUs</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
    <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
   <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>memory</rasd:ElementName>
    <rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>
    <rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
   <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI 0</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID>
    <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
   {items}
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
"""
FILE = '<File ovf:id="file{number}" ovf:href="{href}"{more}/>'
DISK = '<Disk ovf:diskId="disk{number}" ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte"{file}/>'
ITEM = """<Item><rasd:AddressOnParent>{unit}</rasd:AddressOnParent><rasd:ElementName>disk {number}</rasd:ElementName>
    <rasd:HostResource>ovf:/disk/disk{number}</rasd:HostResource><rasd:InstanceID>{id}</rasd:InstanceID>
    <rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>"""


@dataclass(frozen=True)
class Disk:
    """A disk of a descriptor. Without `href` it is empty."""

    capacity: int
    href: str = ""
    compression: str = ""
    chunk: int = 0
    size: int = 0


def envelope(*disks: Disk, name: str = "web01") -> bytes:
    files, sections, items = [], [], []
    for number, disk in enumerate(disks, start=1):
        more = f' ovf:compression="{disk.compression}"' if disk.compression else ""
        more += f' ovf:chunkSize="{disk.chunk}"' if disk.chunk else ""
        more += f' ovf:size="{disk.size}"' if disk.size else ""
        if disk.href:
            files.append(FILE.format(number=number, href=disk.href, more=more))
        file = f' ovf:fileRef="file{number}"' if disk.href else ""
        sections.append(DISK.format(number=number, capacity=disk.capacity, file=file))
        items.append(ITEM.format(unit=number - 1, number=number, id=number + 10))
    parts = {"files": "".join(files), "disks": "".join(sections), "items": "\n".join(items)}
    return ENVELOPE.format(name=name, **parts).encode()


def of_two_files(data: bytes) -> dict[str, bytes]:
    """A machine with a flat VMDK: its descriptor only names the file with the content."""
    text = descriptor("monolithicFlat", f'RW {len(data) // 512} FLAT "web01-flat.vmdk" 0')
    files = {"web01.vmdk": text, "web01-flat.vmdk": data}
    return {"web01.ovf": envelope(Disk(len(data), "web01.vmdk")), **files}


def manifest(
    files: Mapping[str, bytes], algorithm: str = "sha256", form: str = "{algorithm}({name})= {digest}\n"
) -> bytes:
    lines = (
        form.format(algorithm=algorithm.upper(), name=name, digest=hashlib.new(algorithm, data).hexdigest())
        for name, data in files.items()
    )
    return "".join(lines).encode()


def as_tar(files: Mapping[str, bytes]) -> bytes:
    return tar(*(Entry(name, data) for name, data in files.items()))


def as_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def _directory(path: Path, files: Mapping[str, bytes]) -> None:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)


FORMS: Mapping[str, Callable[[Path, Mapping[str, bytes]], object]] = {
    "tar": lambda path, files: path.write_bytes(as_tar(files)),
    "gzip": lambda path, files: path.write_bytes(COMPRESS["gzip"](as_tar(files))),
    "xz": lambda path, files: path.write_bytes(COMPRESS["xz"](as_tar(files))),
    "zstd": lambda path, files: path.write_bytes(COMPRESS["zstd"](as_tar(files))),
    "zip": as_zip,
    "deflated": lambda path, files: as_zip(path, files, zipfile.ZIP_DEFLATED),
    "directory": _directory,
}
"""Every way to write a package to a path."""


def read_ova(path: Path, work: Path, **wanted: object) -> Machine:
    """As the plan stage reads it, with `work` as the working folder."""
    work.mkdir(exist_ok=True)
    with Sources(work) as sources:
        return Ova().read(Migration.model_validate({"ova": path, "vm_name": "web01", **wanted}), sources)
