"""A libvirtd of a test's own, and domains defined in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from hyper2kvmd.booting import decide_firmware
from hyper2kvmd.hardware import decide_hardware
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout, LocalFile, SourceDisk
from hyper2kvmd.model.guest import Guest, Nic
from hyper2kvmd.model.machine import Firmware, Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, PublishedDisk, Registration
from hyper2kvmd.progress import Event
from hyper2kvmd.stages.register import register
from tests.support.benches import bench_for, plan_for, unheard

NOBODY = 65534
PLACES = ("CONFIG_HOME", "CACHE_HOME", "RUNTIME_DIR", "DATA_HOME")


def virsh(uri: str, *words: str) -> str:
    argv = ["timeout", "60", "virsh", "--connect", uri, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@dataclass
class SessionDaemon:
    """libvirtd for a user of its own: everything that it writes is in `folder`. It can be killed and started again."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        socket = self.folder / "RUNTIME_DIR" / "libvirt" / "libvirt-sock"
        return f"qemu+unix:///session?socket={socket}"

    def start(self) -> None:
        places = {f"XDG_{name}": str(self.folder / name) for name in PLACES}
        argv = ["libvirtd"]
        if os.geteuid() == 0:
            argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", *argv]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **places}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        command = ["virsh", "--connect", self.uri, "version"]
        while subprocess.run(command, capture_output=True, check=False).returncode != 0:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)


@contextmanager
def session_daemon(folder: Path) -> Iterator[SessionDaemon]:
    for place in PLACES:
        (folder / place).mkdir(mode=0o700)
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    daemon = SessionDaemon(folder)
    daemon.start()
    try:
        yield daemon
        for name in virsh(daemon.uri, "list", "--name").split():
            virsh(daemon.uri, "destroy", name)
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[SessionDaemon]:
    folder = Path(tempfile.mkdtemp(prefix="h2k-libvirt-", dir="/tmp"))  # short: it holds a socket
    folder.chmod(0o755)
    try:
        with session_daemon(folder) as daemon:
            yield daemon
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def libvirt(libvirtd: SessionDaemon) -> Iterator[tuple[str, Path]]:
    """(URI, a folder of this user's own that libvirt's user may read)."""
    images = Path(tempfile.mkdtemp(prefix="h2k-images-", dir="/tmp"))
    images.chmod(0o755)
    try:
        yield libvirtd.uri, images
    finally:
        shutil.rmtree(images)


def unplug(uri: str, domain: Registration) -> None:
    """A session daemon has no networks, so a domain with cards does not start there."""
    for mac in domain.macs:
        virsh(uri, "detach-interface", domain.name, "network", "--mac", mac, "--config")


def start_alone(uri: str, xml: Path, images: Path) -> Path:
    """Define a published machine and start it, on copies of its disks in `images`; the file of its serial port.

    It is emulated, as not every test host has KVM, and its cards reach nothing: a session daemon has no networks.
    """
    domain = ET.parse(xml).getroot()
    domain.set("type", "qemu")
    for processor in domain.iterfind("cpu"):
        processor.set("mode", "maximum")
    for source in domain.iterfind("devices/disk/source"):
        copy = Path(shutil.copy(source.get("file", ""), images))
        os.chown(copy, NOBODY, NOBODY)
        source.set("file", str(copy))
    for card in domain.iterfind("devices/interface"):
        card.set("type", "user")
        for source in card.findall("source"):
            card.remove(source)
    port = images / "serial"
    for kind in ("serial", "console"):
        for one in domain.iterfind(f"devices/{kind}"):
            one.set("type", "file")
            for source in one.findall("source"):
                one.remove(source)
            ET.SubElement(one, "source", path=str(port))
    changed = images / xml.name
    ET.ElementTree(domain).write(changed)
    virsh(uri, "define", "--validate", str(changed))
    virsh(uri, "start", domain.findtext("name", ""))
    return port


def xml_of(domain: Registration) -> Path:
    (xml,) = domain.files
    return xml


def source(firmware: Firmware = "bios") -> Plan:
    disk = SourceDisk(
        at=LocalFile(path=Path("/srv/web01.vmdk")),
        subformat="streamOptimized",
        virtual_size=1 << 30,
        data_bytes=1 << 20,
        files=(),
    )
    layout = Layout(tables=("dos",))
    return plan_for((disk,), layout, firmware)


def registered(
    folder: Path,
    *,
    firmware: Firmware = "bios",
    job_id: str = "1",
    emit: Callable[[Event], None] = unheard,
    own: Path | None = None,
    machine_had: Mapping[str, object] = MappingProxyType({}),
    **keys: Any,
) -> Registration:
    migration = Migration.model_validate({"vmdk": "/srv/web01.vmdk", "vm_name": "web01", **keys})
    images = [folder / name for name in migration.output_names(migration.known_disks)]
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
        found = source(decide_firmware(migration.uefi, firmware, Layout(tables=()))[0])
        found = found.with_changes(machine=found.machine.with_changes(**machine_had))
        hardware = decide_hardware(migration, found, guest)
        with bench_for(order, own or Path(another), emit) as bench:
            return register(bench, hardware, guest, artifact)


def examined(
    uri: str, folder: Path, machine_had: Mapping[str, object] = MappingProxyType({}), **keys: Any
) -> tuple[str, ...]:
    """The concerns of the target about a plan for such a source machine."""
    asked = {"vmdk": "/srv/a.vmdk", "vm_name": "a", "libvirt_import": True, "libvirt_uri": uri, **keys}
    migration = Migration.model_validate(asked)
    order = Order(job_id="1", migration=migration, conversion_dir=folder, output_dir=folder, helper=("helper",))
    planned = source("uefi" if migration.uefi else "bios")
    machine = planned.machine.with_changes(**machine_had)
    with bench_for(order, folder) as bench:
        return tuple(map(str, bench.target.examine(planned.with_changes(machine=machine))))
