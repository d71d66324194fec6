"""What libvirt makes of machines with Secure Boot, a TPM, an identity and several networks."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.results import Registration
from hyper2kvmd.progress import Event, Warned
from hyper2kvmd.targets.libvirt.capabilities import capabilities_for
from hyper2kvmd.targets.libvirt.connection import Libvirt
from tests.support.libvirt_machines import MACHINES, xml_of_machine
from tests.support.libvirtd import examined, registered, unplug, virsh
from tests.support.libvirtd import libvirt as libvirt
from tests.support.libvirtd import libvirtd as libvirtd

UUID = "564d1d2a-9f0e-4a3b-8c55-0123456789a"


@pytest.mark.parametrize("name", MACHINES)
def test_every_kind_of_domain_is_valid(tmp_path: Path, name: str) -> None:
    """For KVM: the hosts of these tests have emulation only, so libvirt itself is not asked about it."""
    xml = tmp_path / "domain.xml"
    xml.write_text(xml_of_machine(name))
    subprocess.run(["virt-xml-validate", str(xml), "domain"], check=True, capture_output=True)


@pytest.mark.parametrize("name", MACHINES)
def test_libvirt_defines_every_kind_of_domain(libvirt: tuple[str, Path], tmp_path: Path, name: str) -> None:
    uri, _ = libvirt
    xml = tmp_path / "domain.xml"
    xml.write_text(xml_of_machine(name, "qemu"))
    virsh(uri, "define", "--validate", str(xml))
    virsh(uri, "undefine", name, "--nvram")


def inside(uri: str, domain: Registration, *, running: bool = False) -> ET.Element:
    return ET.fromstring(virsh(uri, "dumpxml", *(() if running else ("--inactive",)), domain.name))


def defined(libvirt: tuple[str, Path], name: str, had: Mapping[str, object], **keys: Any) -> Registration:
    uri, images = libvirt
    return registered(images, libvirt_import=True, libvirt_uri=uri, vm_name=name, machine_had=had, **keys)


def test_a_domain_with_secure_boot_starts_with_enrolled_keys(libvirt: tuple[str, Path]) -> None:
    uri, _ = libvirt
    had = {"secure_boot": True, "tpm": True, "serial": "VMware-56 4d, x", "cdroms": 1, "genid": f"{UUID}f"}
    domain = defined(libvirt, "secure", had, firmware="uefi", memory=256, vcpus=1)
    unplug(uri, domain)
    virsh(uri, "start", "secure")
    found = inside(uri, domain, running=True)
    loader, variables = found.find("os/loader"), found.find("os/nvram")
    assert loader is not None and loader.get("secure") == "yes"
    assert variables is not None and ".ms.fd" in variables.get("template", "")
    assert found.findtext("sysinfo/system/entry[@name='serial']") == "VMware-56 4d, x"
    offered = capabilities_for(Libvirt(uri), "secure", "q35")
    assert offered is not None
    assert (found.find("devices/tpm") is None) == offered.lacks_tpm


def test_the_sources_uuid_is_the_domains(libvirt: tuple[str, Path]) -> None:
    uri, _ = libvirt
    domain = defined(libvirt, "kept", {"uuid": f"{UUID}1"}, job_id="1")
    assert domain.identity == virsh(uri, "domuuid", "kept").strip() == f"{UUID}1"
    assert defined(libvirt, "kept", {"uuid": f"{UUID}1"}, job_id="1") == domain  # an attempt after a crash


def test_a_uuid_that_another_domain_has_is_replaced(libvirt: tuple[str, Path], tmp_path: Path) -> None:
    uri, _ = libvirt
    had = {"uuid": f"{UUID}2"}
    first = defined(libvirt, "first", had, job_id="1")
    (concern,) = (one for one in examined(uri, tmp_path, had) if "uuid-in-use" in one)
    assert f"already has the source's UUID {UUID}2, for first: a new one is used" in concern
    heard: list[Event] = []
    second = defined(libvirt, "second", had, job_id="2", emit=heard.append)
    assert virsh(uri, "domuuid", "second").strip() == second.identity not in (None, first.identity)
    assert [event for event in heard if isinstance(event, Warned) and "uuid-in-use" in event.message]
    assert defined(libvirt, "second", had, job_id="2") == second
    assert virsh(uri, "domuuid", "first").strip() == first.identity


def test_a_domain_of_another_job_is_not_ours_with_the_same_name_and_uuid(libvirt: tuple[str, Path]) -> None:
    uri, images = libvirt
    had = {"uuid": f"{UUID}3"}
    defined(libvirt, "twice", had, job_id="1", memory=256)
    before = virsh(uri, "dumpxml", "--inactive", "twice")
    (images / "twice.xml").unlink()
    with pytest.raises(MigrationFailed) as caught:
        defined(libvirt, "twice", had, job_id="2", memory=512)
    assert caught.value.code == "domain-exists"
    assert virsh(uri, "dumpxml", "--inactive", "twice") == before


def test_a_mac_address_in_use_is_a_concern(libvirt: tuple[str, Path], tmp_path: Path) -> None:
    uri, _ = libvirt
    domain = defined(libvirt, "has-card", {})

    def said(mac: str) -> list[str]:
        had = {"nics": ({"mac": mac}, {"mac": None})}
        return [one for one in examined(uri, tmp_path, had) if "mac-in-use" in one]

    used = said(domain.macs[0])
    assert f"the domain has-card of libvirt at {uri} already has the MAC address {domain.macs[0]}" in "\n".join(used)
    assert said("00:50:56:99:99:99") == []


def test_each_network_of_the_map_must_exist(tmp_path: Path) -> None:
    had = {
        "nics": (
            {"mac": "00:50:56:00:00:01", "network": "VM Network"},
            {"mac": "00:50:56:00:00:02", "network": "Backup"},
            {"mac": "00:50:56:00:00:03", "network": "DMZ"},
            {"mac": None},
        )
    }
    network_map = {"VM Network": "lan", "Backup": "bridge:br0", "DMZ": "default"}
    (concern,) = examined("test:///default", tmp_path, had, network_map=network_map)
    assert "libvirt at test:///default has no network lan" in concern
    concerns = examined("test:///default", tmp_path, had, network_map=network_map, libvirt_network="other")
    assert [one.split(" has no network ")[1].split(".")[0] for one in concerns] == ["lan", "other"]


@pytest.mark.parametrize(
    ("had", "keys", "fact"),
    [
        ({"secure_boot": True}, {"uefi": True, "machine": "pc"}, "has no firmware with Secure Boot for the machine"),
        ({}, {"uefi": True, "machine": "pc", "secure_boot": True}, "has no firmware with Secure Boot for the machine"),
    ],
)
def test_secure_boot_that_libvirt_lacks_is_refused_by_the_plan(
    libvirt: tuple[str, Path], tmp_path: Path, had: Mapping[str, object], keys: dict[str, Any], fact: str
) -> None:
    uri, _ = libvirt
    with pytest.raises(MigrationFailed, match=fact) as caught:
        examined(uri, tmp_path, had, **keys)
    assert caught.value.code == "hardware-unsupported"
    assert examined(uri, tmp_path, had, **{**keys, "secure_boot": False}) != ()


def test_a_tpm_needs_swtpm(libvirt: tuple[str, Path], tmp_path: Path) -> None:
    """On a host without it, a TPM that the migration asks for is refused, and one of the source is a concern."""
    uri, _ = libvirt
    offered = capabilities_for(Libvirt(uri), "a", "q35")
    assert offered is not None
    concerns = examined(uri, tmp_path, {"tpm": True})
    assert any("tpm-not-available" in one for one in concerns) == offered.lacks_tpm
    if offered.lacks_tpm:
        with pytest.raises(MigrationFailed, match="cannot emulate a TPM"):
            examined(uri, tmp_path, tpm=True)
    else:
        examined(uri, tmp_path, tpm=True)
