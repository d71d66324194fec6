"""A guest with a network configuration of its own, migrated as a user would and then watched while it comes up.

The guest prints its interfaces on its serial console, over and over. The machine it runs in is made from the domain
XML: as many virtio cards, with those MAC addresses, each behind a root port of its own as libvirt puts them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

from hyper2kvmd.volumes.layout import read_layout
from tests.support.disks import FileReader
from tests.support.host import USER, as_service, command, looped
from tests.support.kernel import Kernel

PROGRAMS = Path(os.environ.get("VIRTUAL_ENV", Path(__file__).resolve().parents[2] / ".venv")) / "bin"
PATIENCE = 280.0
"""Seconds until a guest is given up."""
LISTS = "grep . /sys/class/net/*/address; cat /proc/net/bonding/* /proc/net/route /proc/net/fib_trie; echo end of list"
UNIT = f"[Service]\nExecStart=/bin/sh -c 'while sleep 2; do ( {LISTS} ) >/dev/ttyS0 2>/dev/null; done'\n"
"""What any guest can print; the console is opened each time, because a getty that starts hangs it up."""


@dataclass(frozen=True)
class Card:
    """A network card of the source."""

    mac: str
    slot: int


def migrated(
    disk: Path,
    files: Mapping[str, str],
    cards: tuple[Card, ...],
    folder: Path,
    *,
    enabled: tuple[str, ...] = (),
    masked: tuple[str, ...] = (),
) -> Path:
    """The domain XML of `disk` with `files` in it, migrated from a VMDK with a .vmx beside it."""
    raw, source = folder / "guest.raw", folder / "web01.vmdk"
    shutil.copyfile(disk, raw)
    reader = FileReader(raw)
    root = next(volume for volume in read_layout([reader]).volumes if volume.content == "ext4")
    reader.close()
    with looped(raw, root.segments[0]) as place:
        units = place / "etc/systemd/system"
        for path, text in {**files, "etc/systemd/system/show.service": UNIT}.items():
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o600 if "NetworkManager" in path else 0o644)
        wants = units / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "show.service").symlink_to("/etc/systemd/system/show.service")
        for unit in enabled:
            (wants / unit).symlink_to(f"/lib/systemd/system/{unit}")
        for unit in masked:
            (units / unit).unlink(missing_ok=True)
            (units / unit).symlink_to("/dev/null")
    command("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, source)
    raw.unlink()
    lines = ['scsi0:0.fileName = "web01.vmdk"']
    for number, card in enumerate(cards):
        lines += [
            f'ethernet{number}.present = "TRUE"',
            f'ethernet{number}.virtualDev = "vmxnet3"',
            f'ethernet{number}.addressType = "vpx"',
            f'ethernet{number}.generatedAddress = "{card.mac}"',
            f'ethernet{number}.pciSlotNumber = "{card.slot}"',
        ]
    (folder / "web01.vmx").write_text("\n".join(lines) + "\n")
    config = folder / "web01.yaml"
    config.write_text(f"vmdk: {source}\noutput_dir: {folder}\n")
    for given in (source, folder / "web01.vmx", config):
        shutil.chown(given, USER, USER)
    argv = as_service(PROGRAMS / "h2kvmctl", "--config", config, "--conversion-dir", folder / "conversions")
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Kernel.now().clean
    return folder / "web01.xml"


def card(name: str, mac: str) -> str:
    """A pattern of the list: the interface is this card."""
    return rf"^/sys/class/net/{name}/address:{mac}$"


def address(name: str, text: str) -> tuple[str, str]:
    """Patterns of the list: this address, such as 10.20.30.40/24, is in force on the interface."""
    given = ip_interface(text)
    network = given.network.network_address.packed[::-1].hex().upper()
    return rf"^{name}\t{network}\t", rf"-- {re.escape(str(given.ip))}$"


def see(domain: Path, *expected: str) -> str:
    """Boot the domain until one list of its interfaces has a match for all of `expected`; that list."""
    devices = ET.parse(domain).getroot().find("devices")
    assert devices is not None
    image = next(element.get("file") for element in devices.iterfind("disk/source"))
    argv = ["timeout", str(PATIENCE), "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"]
    argv += ["-machine", "q35", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
    argv += ["-drive", f"if=none,id=disk,format=qcow2,snapshot=on,file={image}", "-device", "virtio-blk,drive=disk"]
    for number, mac in enumerate(element.get("address") for element in devices.iterfind("interface/mac")):
        argv += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1}"]
        argv += ["-netdev", f"user,id=net{number},restrict=on"]
        argv += ["-device", f"virtio-net-pci,bus=port{number},netdev=net{number},mac={mac}"]
    said = ""
    deadline = time.monotonic() + PATIENCE
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as emulator:
        assert emulator.stdout is not None
        try:
            while time.monotonic() < deadline and (data := os.read(emulator.stdout.fileno(), 65536)):
                said += data.decode(errors="replace").replace("\r", "")
                for shown in said.split("end of list")[:-1][-1:]:
                    if all(re.search(pattern, shown, re.MULTILINE) for pattern in expected):
                        return shown
        finally:
            emulator.terminate()  # timeout passes it on; a kill would leave the emulator behind
    raise AssertionError(f"{expected} was not seen; the console ended with:\n{said[-4000:]}")
