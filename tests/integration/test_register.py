"""The domain XML against libvirt's own schema, and its definition against a real libvirtd of our own."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.machine import Firmware
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, PublishedDisk
from hyper2kvmd.progress import Event, Warned
from hyper2kvmd.stages.register import register
from hyper2kvmd.targets.libvirt.connection import Libvirt
from hyper2kvmd.targets.libvirt.definition import domain_exists
from tests.support.attempts import Attempts
from tests.support.benches import bench_for, hardware_for
from tests.support.libvirtd import SessionDaemon, examined, registered, unplug, virsh, xml_of
from tests.support.libvirtd import libvirt as libvirt
from tests.support.libvirtd import libvirtd as libvirtd


@pytest.mark.parametrize(
    ("firmware", "keys"),
    [
        ("bios", {}),
        ("uefi", {}),
        ("uefi", {"uefi": False}),
        ("bios", {"uefi": True, "out_format": "raw", "memory": 8192, "vcpus": 8}),
        ("bios", {"machine": "pc", "libvirt_network": "lan & <dmz>"}),
    ],
)
def test_the_xml_passes_libvirts_schema(tmp_path: Path, firmware: Firmware, keys: dict[str, Any]) -> None:
    domain = registered(tmp_path, firmware=firmware, **keys)
    subprocess.run(["virt-xml-validate", str(xml_of(domain)), "domain"], check=True, capture_output=True)
    assert not domain.defined and domain.uri is None
    assert not list(tmp_path.glob("*.partial"))


def test_an_xml_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "web01.xml").write_text("somebody's")
    with pytest.raises(MigrationFailed) as caught:
        registered(tmp_path)
    assert caught.value.code == "output-exists"
    assert (tmp_path / "web01.xml").read_text() == "somebody's"


def test_a_killed_attempts_xml_is_taken_back(tmp_path: Path) -> None:
    """Its folder is still there, and knows it; one that failed has no folder any more, and left the very same text."""
    own = tmp_path / "own"
    own.mkdir()
    registered(tmp_path, own=own, memory=256)
    domain = registered(tmp_path, own=own, memory=512)
    assert ET.parse(xml_of(domain)).getroot().findtext("memory") == "512"
    assert registered(tmp_path, memory=512) == domain


def test_the_xml_says_what_was_asked_for(tmp_path: Path) -> None:
    domain = registered(tmp_path, memory=3072, vcpus=3, libvirt_network="lan", uefi=True)
    root = ET.parse(xml_of(domain)).getroot()

    def attribute(path: str, name: str) -> str | None:
        element = root.find(path)
        assert element is not None, path
        return element.get(name)

    assert root.get("type") == "kvm"
    assert (root.findtext("memory"), attribute("memory", "unit")) == ("3072", "MiB")
    assert root.findtext("vcpu") == "3"
    assert attribute("os", "firmware") == "efi"
    assert attribute("os/type", "machine") == "q35"
    assert attribute("devices/disk/source", "file") == str(tmp_path / "web01.qcow2")
    assert attribute("devices/disk/driver", "type") == "qcow2"
    assert attribute("devices/disk/target", "bus") == "virtio"
    assert attribute("devices/interface/source", "network") == "lan"
    assert attribute("devices/interface/model", "type") == "virtio"
    addresses = tuple(mac.get("address") for mac in root.iterfind("devices/interface/mac"))
    assert addresses == domain.macs == ("00:50:56:01:02:03", "52:54:00:01:02:04")
    assert attribute("devices/console/target", "type") == "serial"
    assert attribute("devices/channel/target", "name") == "org.qemu.guest_agent.0"


def test_libvirt_takes_the_domain_and_can_start_it(libvirt: tuple[str, Path]) -> None:
    uri, images = libvirt
    domain = registered(images, libvirt_import=True, libvirt_uri=uri, vm_name="starts", memory=256, vcpus=1)
    assert domain.defined and domain.uri == uri
    assert virsh(uri, "domuuid", domain.name).strip() == domain.identity
    info = virsh(uri, "dominfo", "starts")
    assert "shut off" in info
    assert "256" not in info.split("Used memory")[0].split("Max memory")[0]
    assert str(256 * 1024) in info
    assert domain_exists(Libvirt(uri), "starts")
    unplug(uri, domain)
    virsh(uri, "start", "starts")
    assert virsh(uri, "domstate", "starts").strip() == "running"


def test_a_uefi_domain_starts_with_its_own_firmware_variables(libvirt: tuple[str, Path]) -> None:
    uri, images = libvirt
    domain = registered(
        images, libvirt_import=True, libvirt_uri=uri, vm_name="efi", firmware="uefi", memory=256, vcpus=1
    )
    unplug(uri, domain)
    virsh(uri, "start", "efi")
    loader = ET.fromstring(virsh(uri, "dumpxml", "efi")).findtext("os/loader")
    assert loader is not None and "secboot" not in loader


def test_an_existing_domain_is_never_overwritten(libvirt: tuple[str, Path]) -> None:
    uri, images = libvirt
    registered(images, libvirt_import=True, libvirt_uri=uri, vm_name="taken", memory=256)
    before = virsh(uri, "dumpxml", "--inactive", "taken")
    (images / "taken.xml").unlink()
    with pytest.raises(MigrationFailed) as caught:
        registered(images, libvirt_import=True, libvirt_uri=uri, vm_name="taken", memory=512, job_id="2")
    assert caught.value.code == "domain-exists"
    assert virsh(uri, "dumpxml", "--inactive", "taken") == before
    assert (images / "taken.qcow2").exists()


def test_an_attempt_after_a_crash_finds_its_own_domain(libvirt: tuple[str, Path]) -> None:
    uri, images = libvirt
    first = registered(images, libvirt_import=True, libvirt_uri=uri, vm_name="again", job_id="7")
    assert registered(images, libvirt_import=True, libvirt_uri=uri, vm_name="again", job_id="7") == first


def test_a_refused_definition_fails_with_libvirts_reason_and_keeps_the_image(libvirt: tuple[str, Path]) -> None:
    uri, images = libvirt
    with pytest.raises(MigrationFailed) as caught:
        registered(images, libvirt_import=True, libvirt_uri=uri, vm_name="toobig", vcpus=1000)
    assert caught.value.code == "libvirt-define-failed"
    assert "Maximum CPUs" in caught.value.message
    assert (images / "toobig.qcow2").exists() and (images / "toobig.xml").exists()
    assert not domain_exists(Libvirt(uri), "toobig")


@pytest.mark.parametrize(
    ("keys", "fact"),
    [
        ({"machine_had": {"vcpus": 256}}, "limits the machine type q35 to 255 virtual CPUs, and this machine has 256"),
        (
            {"machine_had": {"vcpus": 2}, "vcpus": 300, "machine": "pc"},
            "limits the machine type pc to 255 virtual CPUs",
        ),
        ({"machine": "isapc"}, "limits the machine type isapc to 1 virtual CPUs, and this machine has 2"),
        ({"machine": "nonsense"}, "does not support the machine type nonsense: invalid argument: the machine"),
        ({"machine": "microvm", "uefi": True}, "has no UEFI firmware for the machine type microvm"),
    ],
)
def test_a_machine_that_libvirt_cannot_run_is_refused_by_its_plan(
    libvirt: tuple[str, Path], tmp_path: Path, keys: dict[str, Any], fact: str
) -> None:
    uri, _ = libvirt
    with pytest.raises(MigrationFailed) as caught:
        examined(uri, tmp_path, **keys)
    assert caught.value.code == "hardware-unsupported"
    assert caught.value.message.startswith(f"a: libvirt at {uri} {fact}")
    assert examined(uri, tmp_path, libvirt_import=False, **keys) == ()


@pytest.mark.parametrize("keys", [{"uefi": True, "vcpus": 255}, {"machine": "microvm"}])
def test_a_missing_network_is_a_concern(libvirt: tuple[str, Path], tmp_path: Path, keys: dict[str, Any]) -> None:
    uri, _ = libvirt
    concern = f"libvirt at {uri} has no network lan. Create it before you start a. [network-missing]"
    assert examined(uri, tmp_path, libvirt_network="lan", **keys) == (concern,)


def test_a_libvirt_without_capabilities_and_with_the_network(tmp_path: Path) -> None:
    assert examined("test:///default", tmp_path, {"vcpus": 300}) == ()
    (concern,) = examined("test:///default", tmp_path, libvirt_network="lan")
    assert "no network lan" in concern


def test_nothing_is_converted_for_a_machine_that_libvirt_cannot_run(libvirt: tuple[str, Path], tmp_path: Path) -> None:
    uri, _ = libvirt
    job = Attempts(tmp_path, libvirt_import=True, libvirt_uri=uri, vcpus=300)
    assert job.run() == ([Stage.PLAN], "hardware-unsupported")


def test_an_unreachable_libvirt_is_named(tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        domain_exists(Libvirt(f"qemu+unix:///session?socket={tmp_path}/none"), "web01")
    assert (caught.value.code, caught.value.kind) == ("libvirt-unreachable", Kind.RETRY)
    assert "Failed to connect socket" in caught.value.message


def test_a_libvirt_that_has_gone_says_nothing_about_kvm(libvirtd: SessionDaemon, tmp_path: Path) -> None:
    """The next attempt, with the folder of this one, defines the machine as if nothing had happened."""
    own, images = tmp_path / "own", tmp_path / "images"
    own.mkdir()
    images.mkdir()
    libvirtd.kill()
    try:
        with pytest.raises(MigrationFailed) as caught:
            registered(images, own=own, libvirt_import=True, libvirt_uri=libvirtd.uri, vm_name="gone")
    finally:
        libvirtd.start()
    assert (caught.value.code, caught.value.kind) == ("libvirt-unreachable", Kind.RETRY)
    assert not (images / "gone.xml").exists()


def test_whoever_may_not_use_libvirt_is_told_so(libvirtd: SessionDaemon) -> None:
    socket = libvirtd.folder / "RUNTIME_DIR" / "libvirt"
    script = (
        "import os,sys; os.setgid(1); os.setuid(1);"
        "from hyper2kvmd.targets.libvirt.connection import Libvirt\n"
        f"try: Libvirt({libvirtd.uri!r}).virsh('list')\n"
        "except Exception as error: print(error.code, error.kind)"
    )
    socket.chmod(0o700)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["libvirt-refused", "operator"], done


def test_emulation_is_chosen_and_said_where_kvm_is_not(tmp_path: Path) -> None:
    heard: list[Event] = []
    own = tmp_path / "own"
    own.mkdir()
    migration = Migration(vmdk=(Path("/srv/a.vmdk"),), vm_name="a", libvirt_import=True, libvirt_uri="test:///default")
    image = tmp_path / "a.qcow2"
    artifact = Artifact(
        disks=(PublishedDisk(path=image, file_bytes=1),), format="qcow2", report_json=image, report_markdown=image
    )
    order = Order(job_id="1", migration=migration, conversion_dir=tmp_path, output_dir=tmp_path, helper=("helper",))
    # the test driver has no qemu domains, and forgets all between two calls
    with pytest.raises(MigrationFailed) as caught, bench_for(order, own, heard.append) as bench:
        register(bench, hardware_for("bios"), Guest(), artifact)
    assert caught.value.code == "libvirt-define-failed"
    assert ET.parse(tmp_path / "a.xml").getroot().get("type") == "qemu"
    assert [event for event in heard if isinstance(event, Warned) and "emulation" in event.message]
