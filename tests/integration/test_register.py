"""The domain XML against libvirt's own schema, and its definition against a real libvirtd of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.hardware import decide_firmware, decide_hardware
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout, SourceDisk
from hyper2kvmd.model.guest import Guest, Nic
from hyper2kvmd.model.machine import Firmware, Hardware, Source
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, Domain, PublishedDisk
from hyper2kvmd.progress import Context, Event, Warned
from hyper2kvmd.stages.register import register
from hyper2kvmd.targets.libvirt.connection import Libvirt
from hyper2kvmd.targets.libvirt.definition import domain_exists

NOBODY = 65534


def virsh(uri: str, *words: str) -> str:
    argv = ["timeout", "60", "virsh", "--connect", uri, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@contextmanager
def session_daemon(folder: Path) -> Iterator[str]:
    """libvirtd for a user of its own: everything that it writes is in `folder`."""
    places = {f"XDG_{name}": str(folder / name) for name in ("CONFIG_HOME", "CACHE_HOME", "RUNTIME_DIR", "DATA_HOME")}
    for place in places.values():
        Path(place).mkdir(mode=0o700)
    argv = ["libvirtd"]
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", *argv]
    socket = folder / "RUNTIME_DIR" / "libvirt" / "libvirt-sock"
    uri = f"qemu+unix:///session?socket={socket}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **places}
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while subprocess.run(["virsh", "--connect", uri, "version"], capture_output=True, check=False).returncode != 0:
            assert daemon.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield uri
        for name in virsh(uri, "list", "--name").split():
            virsh(uri, "destroy", name)
    finally:
        daemon.terminate()
        daemon.wait(30)


@pytest.fixture(scope="module")
def libvirt() -> Iterator[tuple[str, Path]]:
    """(URI, a folder of this user's own that libvirt's user may read)."""
    folder = Path(tempfile.mkdtemp(prefix="h2k-libvirt-", dir="/tmp"))  # short: it holds a socket
    images = Path(tempfile.mkdtemp(prefix="h2k-images-", dir="/tmp"))
    for place in (folder, images):
        place.chmod(0o755)
    try:
        with session_daemon(folder) as uri:
            yield uri, images
    finally:
        for place in (folder, images):
            shutil.rmtree(place)


def unplug(uri: str, domain: Domain) -> None:
    """A session daemon has no networks, so a domain with cards does not start there."""
    for mac in domain.macs:
        virsh(uri, "detach-interface", domain.name, "network", "--mac", mac, "--config")


def context(emit: Callable[[Event], None]) -> Context:
    def admit(source: Source) -> None:
        raise AssertionError("registering reserves no space")

    return Context(emit, admit)


def source(firmware: Firmware = "bios") -> Source:
    disk = SourceDisk(
        path=Path("/srv/web01.vmdk"),
        subformat="streamOptimized",
        virtual_size=1 << 30,
        data_bytes=1 << 20,
        files=(),
    )
    layout = Layout(tables=("dos",))
    return Source.model_validate({"disks": (disk,), "layout": layout, "firmware": firmware, "needed_bytes": 1})


def registered(
    folder: Path,
    *,
    firmware: Firmware = "bios",
    job_id: str = "1",
    emit: Callable[[Event], None] = lambda _event: None,
    own: Path | None = None,
    **keys: Any,
) -> Domain:
    migration = Migration.model_validate({"vmdk": "/srv/web01.vmdk", "vm_name": "web01", **keys})
    images = [folder / name for name in migration.output_names]
    for image in images:
        if not image.exists():
            argv = ["qemu-img", "create", "-q", "-f", migration.out_format, str(image), "64M"]
            subprocess.run(argv, check=True)
            if os.geteuid() == 0:
                os.chown(image, NOBODY, NOBODY)
    artifact = Artifact(
        disks=tuple(PublishedDisk(path=image, file_bytes=1) for image in images),
        format=migration.out_format,
        report_json=folder / "r.json",
        report_markdown=folder / "r",
    )
    order = Order(
        job_id=job_id, migration=migration, conversion_dir=folder, output_dir=folder, helper=("sudo", "-n", "helper")
    )
    nics = (Nic(name="ens192", mac="00:50:56:01:02:03"), Nic(name=None, mac="52:54:00:01:02:04"))
    guest = Guest(os_id="debian", os_name="Debian GNU/Linux 12", nics=nics)
    with tempfile.TemporaryDirectory() as another:
        found = source(decide_firmware(migration.uefi, firmware))
        hardware = decide_hardware(migration, found, guest)
        return register(order, hardware, guest, artifact, own or Path(another), context(emit))


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
    subprocess.run(["virt-xml-validate", str(domain.xml), "domain"], check=True, capture_output=True)
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
    assert ET.parse(domain.xml).getroot().findtext("memory") == "512"
    assert registered(tmp_path, memory=512) == domain


def test_the_xml_says_what_was_asked_for(tmp_path: Path) -> None:
    domain = registered(tmp_path, memory=3072, vcpus=3, libvirt_network="lan", uefi=True)
    root = ET.parse(domain.xml).getroot()

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


def test_an_unreachable_libvirt_is_named(tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        domain_exists(Libvirt(f"qemu+unix:///session?socket={tmp_path}/none"), "web01")
    assert caught.value.code == "libvirt-unreachable"
    assert "Failed to connect socket" in caught.value.message


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
    with pytest.raises(MigrationFailed):  # the test driver has no qemu domains, and forgets all between two calls
        register(order, Hardware(firmware="bios"), Guest(), artifact, own, context(heard.append))
    assert ET.parse(tmp_path / "a.xml").getroot().get("type") == "qemu"
    assert [event for event in heard if isinstance(event, Warned) and "emulation" in event.message]
