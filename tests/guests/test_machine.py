"""A whole machine from one OVA: two disks, UEFI with Secure Boot, its card and its address as they were."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from hyper2kvmd.proof.boot import AS_BEFORE
from tests.guests import spanned_uefi
from tests.guests.guest import disks
from tests.support.disks import sh
from tests.support.host import USER, service_python
from tests.support.host import installed_helper as installed_helper
from tests.support.host import service_folder as service_folder
from tests.support.host import service_user as service_user
from tests.support.kernel import Kernel
from tests.support.libvirtd import NOBODY, start_alone, virsh
from tests.support.libvirtd import libvirt as libvirt
from tests.support.libvirtd import libvirtd as libvirtd

LIMIT = 290
"""Seconds that the migration may take before it is ended."""
MAC = "00:50:56:8a:10:01"
UUID = "564d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7"
OVF = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References>
  <File ovf:id="file1" ovf:href="web01-disk1.vmdk" ovf:size="{sizes[0]}"/>
  <File ovf:id="file2" ovf:href="web01-disk2.vmdk" ovf:size="{sizes[1]}"/>
 </References>
 <DiskSection>
  <Info>Virtual disks</Info>
  <Disk ovf:capacity="{capacities[1]}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk2" ovf:fileRef="file2"/>
  <Disk ovf:capacity="{capacities[0]}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk1" ovf:fileRef="file1"/>
 </DiskSection>
 <NetworkSection><Info>Networks</Info><Network ovf:name="VLAN 20"/></NetworkSection>
 <VirtualSystem ovf:id="web01">
  <Info>A virtual machine</Info>
  <Name>web01</Name>
  <VirtualHardwareSection>
   <Info>Virtual hardware</Info>
   <Item><rasd:ElementName>1 CPU</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
    <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
   <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>1 GiB</rasd:ElementName>
    <rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>
    <rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
   <Item><rasd:Address>1</rasd:Address><rasd:ElementName>SCSI 1</rasd:ElementName>
    <rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
    <rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI 0</rasd:ElementName>
    <rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
    <rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Disk 2</rasd:ElementName>
    <rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource><rasd:InstanceID>9</rasd:InstanceID>
    <rasd:Parent>4</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Disk 1</rasd:ElementName>
    <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>8</rasd:InstanceID>
    <rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:Address>{mac}</rasd:Address><rasd:AddressOnParent>7</rasd:AddressOnParent>
    <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation><rasd:Connection>VLAN 20</rasd:Connection>
    <rasd:ElementName>Card 1</rasd:ElementName><rasd:InstanceID>10</rasd:InstanceID>
    <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType>
    <vmw:Config ovf:required="false" vmw:key="slotInfo.pciSlotNumber" vmw:value="192"/></Item>
   <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
   <vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
"""


def package(folder: Path) -> Path:
    """The OVA, as vSphere exports it: descriptor, manifest, disks."""
    parts = []
    raws = disks(spanned_uefi.GUEST)
    for number, raw in enumerate(raws, start=1):
        parts.append(folder / f"web01-disk{number}.vmdk")
        sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, parts[-1])
    described = OVF.format(
        sizes=[part.stat().st_size for part in parts], capacities=[raw.stat().st_size for raw in raws], mac=MAC
    )
    (folder / "web01.ovf").write_text(described)
    parts.insert(0, folder / "web01.ovf")
    digests = [f"SHA256({part.name})= {hashlib.sha256(part.read_bytes()).hexdigest()}\n" for part in parts]
    (folder / "web01.mf").write_text("".join(digests))
    parts.insert(1, folder / "web01.mf")
    with tarfile.open(folder / "web01.ova", "w", format=tarfile.USTAR_FORMAT) as archive:
        for part in parts:
            archive.add(part, part.name)
            part.unlink()
    return folder / "web01.ova"


def test_a_machine_keeps_disks_firmware_card_and_address(
    service_folder: Path, installed_helper: tuple[str, ...], libvirt: tuple[str, Path]
) -> None:
    ova = package(service_folder)
    ova.chmod(0o644)
    out = service_folder / "out"
    settings = {"ova": ova, "verify": "boot", "network_map": "{VLAN 20: lan}", "output_dir": out}
    (service_folder / "web01.yaml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    out.mkdir()
    shutil.chown(out, USER, USER)
    words = ("--config", service_folder / "web01.yaml", "--conversion-dir", service_folder / "work")
    argv = service_python("hyper2kvmd.cli.ctl", *words)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Kernel.now().clean
    report = json.loads((out / "web01.report.json").read_text())
    assert any("asked for a login" in line for line in report["verdict"]["evidence"])
    assert AS_BEFORE in report["verdict"]["evidence"], report["verdict"]
    card = {"name": "ens192", "mac": MAC, "mac_is_new": False, "network": "VLAN 20", "connected": True}
    assert report["guest"]["nics"] == [card]
    domain = ET.parse(out / "web01.xml").getroot()
    features = {one.get("name"): one.get("enabled") for one in domain.iterfind("os/firmware/feature")}
    assert features == {"secure-boot": "yes", "enrolled-keys": "yes"}
    assert [one.get("network") for one in domain.iterfind("devices/interface/source")] == ["lan"]
    assert [one.get("address") for one in domain.iterfind("devices/interface/mac")] == [MAC]
    files = [Path(one.get("file", "")).name for one in domain.iterfind("devices/disk/source")]
    assert files == ["web01.qcow2", "web01-disk2.qcow2"]
    assert (domain.findtext("memory"), domain.findtext("vcpu")) == ("1024", "1")
    asks_for_a_login(libvirt, out / "web01.xml")


def asks_for_a_login(libvirt: tuple[str, Path], xml: Path) -> None:
    """libvirt boots the machine, by its own choice of firmware with Secure Boot."""
    uri, images = libvirt
    os.chown(images, NOBODY, NOBODY)
    port, deadline = start_alone(uri, xml, images), time.monotonic() + LIMIT
    while "web01 login:" not in port.read_text(errors="replace"):
        assert time.monotonic() < deadline, port.read_text(errors="replace")[-2000:]
        assert "running" in virsh(uri, "domstate", "web01")
        time.sleep(2)
