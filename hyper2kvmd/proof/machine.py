"""The virtual machine for the boot proof: the devices that the libvirt domain will have, in a confined QEMU.

Covers its command line, and the QMP connection to a running one. A TPM is left out: its emulator is a further program.
Virtio devices are behind PCI Express root ports if the machine has them, in libvirt's order: there they are virtio 1
only, which an old kernel may not support. The guest's network answers DHCP and is isolated.

Sources: QEMU's docs/interop (QMP), libvirt's qemu_domain_address.c and qemu_command.c.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.qemu.export import Backing, layer
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.kvm import EMULATOR, KVM_DEVICE, OPTIONS, READABLE, Accelerator
from hyper2kvmd.host.run import Sandbox, start, stop
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Extra
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.proof.firmware import uefi_firmware
from hyper2kvmd.proof.monitor import ANSWER_SECONDS, Monitor, no_qmp

MEMORY_CAP, VCPU_CAP = 4096, 4
"""MiB and CPUs: the boot proves the disk, not the size of the guest."""
EMULATED_VCPUS = 1
"""With two, kernels died on busy hosts ("Oops: int3", QEMU 7.2): one CPU hit the breakpoint with which the other was
rewriting the kernel's code, and found it already removed.
"""
NIC_DEVICES = {"virtio": "virtio-net-pci", "e1000e": "e1000e"}
VIDEO_CARDS = {"vga": "std"}
CONTROLLERS: Mapping[Extra, str] = {"usb": "qemu-xhci,id=usb", "agent": "virtio-serial-pci,id=serial"}
"""libvirt places them before the disks."""
PCI_DEVICES: Mapping[Extra, str] = {"balloon": "virtio-balloon-pci", "rng": "virtio-rng-pci,rng=entropy"}
"""libvirt places them behind the disks."""
ATTACHED: Mapping[Extra, str] = {
    "usb": "usb-tablet,bus=usb.0",
    "agent": "virtserialport,bus=serial.0,chardev=agent,name=org.qemu.guest_agent.0",
}
"""Devices on the controllers."""
SATA_PORTS = 6
"""Of one controller."""
SECURE_VARIABLES = ["-global", "driver=cfi.pflash01,property=secure,value=on"]
"""Only firmware in SMM writes the UEFI variables."""
ENLIGHTENMENTS = (
    *("hv-relaxed", "hv-vapic", "hv-spinlocks=0x1fff", "hv-vpindex"),
    *("hv-runtime", "hv-synic", "hv-stimer", "hv-frequencies", "hv-time"),
)
"""Those of the domain, and its timer."""
OVERLAY_LIMIT = 16 << 30
"""Bytes that a guest may write to one disk."""
GATHER_SECONDS = 0.1
"""An emulated serial port delivers single characters; they are evaluated at most ten times a second."""
MESSAGES_TAIL = 4000
"""Bytes of QEMU's own messages that are read: more than KVM's error with all registers."""
MESSAGES_KEPT = 1000
"""Characters of them that are reported."""
REGISTERS = re.compile(r"\w+ *=|extra data")
"""How the lines begin that show a failed CPU's state."""
GOES_ON = frozenset({"prelaunch", "running", "suspended", "shutdown"})
"""Run states in which the machine starts, runs, sleeps or ends: it leaves all others only on an order, which nobody
gives. Source: QEMU's qapi/run-state.json.
"""


class Overlay(Frozen):
    """Throwaway QCOW2s on the disks of an image that is only read. Their headers name no backing file: it is given when
    one is opened.
    """

    base: Image
    image: Image

    @property
    def below(self) -> tuple[Backing, ...]:
        """The disks of `base`, one for each overlay."""
        return tuple(Backing(disk.path, self.base.format) for disk in self.base.disks)


def overlay(base: Image, folder: Path) -> Overlay:
    """Empty overlays of all disks of `base`, in `folder`."""
    disks = []
    for number, disk in enumerate(base.disks):
        path = folder / f"disk{number + 1}.qcow2"
        qemu_img.create(path, disk.virtual_size)
        disks.append(disk.with_changes(path=path))
    return Overlay(base=base, image=base.with_changes(disks=tuple(disks), format="qcow2"))


class RunningMachine:
    """A running guest. `console` is its serial console, to be read; other requests use QMP."""

    def __init__(self, process: subprocess.Popen[bytes], monitor: Monitor, accelerator: Accelerator) -> None:
        assert process.stdout is not None and process.stderr is not None  # noqa: S101 - narrows the type
        self.console = process.stdout
        self._stderr: IO[bytes] | None = process.stderr
        self._said = b""
        self.accelerator = accelerator
        self._process, self._monitor = process, monitor
        self._cpu = psutil.Process(process.pid)

    @property
    def ending(self) -> str | None:
        """Why the guest ended, in QEMU's words: `guest-shutdown`, `guest-reset`..."""
        return self._monitor.ending

    def read_console(self, seconds: float) -> bytes | None:
        """The output within that time; None when the machine has ended."""
        ready, _, _ = select.select([self.console, *([self._stderr] if self._stderr else [])], [], [], seconds)
        if self._stderr in ready:
            self._read_messages()
        if self.console not in ready:
            return b""
        time.sleep(GATHER_SECONDS)
        return os.read(self.console.fileno(), 65536) or None

    def messages(self) -> str:
        """What QEMU itself said so far, as one line without registers. It is no part of the console."""
        while self._stderr is not None and select.select([self._stderr], [], [], 0)[0]:
            self._read_messages()
        lines = self._said.decode(errors="replace").split("\n")
        said = " / ".join(line for line in lines if not REGISTERS.match(line))
        return "".join(character for character in said if character.isprintable()).strip(" /")[-MESSAGES_KEPT:]

    def _read_messages(self) -> None:
        assert self._stderr is not None  # noqa: S101 - narrows the type
        data = os.read(self._stderr.fileno(), 65536)
        self._said = (self._said + data)[-MESSAGES_TAIL:]
        if not data:
            self._stderr = None

    def disk_bytes(self) -> int:
        """Read and written so far, all disks together; 0 once the machine has ended. Raises as `Monitor` does."""
        devices = self._monitor.ask("query-blockstats") or []
        try:
            return sum(int(device["stats"][name]) for device in devices for name in ("rd_bytes", "wr_bytes"))
        except (KeyError, TypeError, ValueError):
            raise no_qmp() from None

    def stopped_state(self) -> str | None:
        """QEMU's word for why the machine was stopped for good: `internal-error`, `io-error`... None if it was not, and
        once it has ended. Raises as `Monitor` does.
        """
        answer = self._monitor.ask("query-status")
        if answer is None:
            return None
        state = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(state, str):
            raise no_qmp()
        return None if state in GOES_ON else state

    def cpu_seconds(self) -> float:
        with contextlib.suppress(psutil.Error):
            times = self._cpu.cpu_times()
            return float(times.user + times.system)
        return 0.0

    def press_power_button(self) -> None:
        """Send the ACPI event: only a userspace that is up reacts to it. Raises as `Monitor` does."""
        self._monitor.ask("system_powerdown")

    def wait(self) -> int:
        """Its exit status, once the console has ended; `ending` is known then. -1 if it does not end."""
        with contextlib.suppress(MigrationFailed, subprocess.TimeoutExpired):
            self._monitor.follow()
            return self._process.wait(ANSWER_SECONDS)
        return -1


@contextmanager
def running(overlaid: Overlay, hardware: Hardware, scratch: Path, accelerator: Accelerator) -> Iterator[RunningMachine]:
    """A machine that boots from the hardware's boot disk, killed at the end of the block.

    UEFI variables start from the template and stay in `scratch`. Raises BrokenInstallation (`tool-missing`,
    `firmware-missing`).
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            argv = _command(hardware, len(overlaid.base.disks), theirs.fileno(), accelerator)
            argv += _disks(overlaid)
            readable = (*READABLE, *(disk.path for disk in overlaid.base.disks))
            if hardware.firmware == "uefi":
                code, template = uefi_firmware(secure_boot=hardware.secure_boot)
                variables = scratch / "vars.fd"
                if not variables.exists():
                    shutil.copyfile(template, variables)
                argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={_escaped(code)}"]
                argv += ["-drive", f"if=pflash,format=raw,file={_escaped(variables)}"]
                readable = (*readable, code)
            sandbox = Sandbox(
                read=readable,
                write=(scratch, KVM_DEVICE) if accelerator == "kvm" else (scratch,),
                address_space=(MEMORY_CAP << 20) + (8 << 30),
                file_size=OVERLAY_LIMIT,
            )
            process = start(argv, sandbox=sandbox, stderr=subprocess.PIPE, pass_fds=(theirs.fileno(),))
        try:
            with Monitor(ours) as monitor:
                yield RunningMachine(process, monitor, accelerator)
        finally:
            stop(process, grace=0)


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def _command(hardware: Hardware, disks: int, monitor: int, accelerator: Accelerator) -> list[str]:
    argv = [EMULATOR, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]
    argv += ["-vga", VIDEO_CARDS[hardware.video]]
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    argv += _processor(hardware, accelerator)
    processors = min(hardware.vcpus, VCPU_CAP, os.cpu_count() or 1) if accelerator == "kvm" else EMULATED_VCPUS
    argv += ["-machine", f"{hardware.machine},graphics=off,vmport=off,hpet=off" + ",smm=on" * hardware.secure_boot]
    argv += SECURE_VARIABLES if hardware.secure_boot else []
    argv += ["-rtc", f"base={hardware.rtc}"]
    argv += ["-m", str(min(hardware.memory, MEMORY_CAP)), "-smp", str(processors)]
    argv += _identity(hardware)
    argv += ["-serial", "stdio", "-chardev", f"socket,id=qmp,fd={monitor}", "-mon", "chardev=qmp,mode=control"]
    argv += ["-chardev", "null,id=agent", "-object", "rng-builtin,id=entropy"]
    devices = []
    for number, mac in enumerate(hardware.macs):
        argv += ["-netdev", f"user,id=net{number},restrict=on"]
        devices.append(f"{NIC_DEVICES[hardware.nic_model]},netdev=net{number},mac={mac},romfile=")
    devices += [device for extra, device in CONTROLLERS.items() if extra in hardware.extras]
    if hardware.disk_bus == "virtio":
        devices += [f"virtio-blk-pci,drive=disk{number}{_boots(hardware, number)}" for number in range(disks)]
    if hardware.disk_bus == "scsi":
        devices += ["virtio-scsi-pci,id=scsi"]
    on_sata = _on_sata(hardware, disks)
    devices += [f"ich9-ahci,id=sata{number}" for number in range(-(-len(on_sata) // SATA_PORTS))]
    devices += [device for extra, device in PCI_DEVICES.items() if extra in hardware.extras]
    for number, device in enumerate(devices):
        if "q35" in hardware.machine:
            argv += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1}"]
            device += f",bus=port{number}"
        argv += ["-device", device]
    for number, device in enumerate(on_sata):
        argv += ["-device", f"{device},bus=sata{number // SATA_PORTS}.{number % SATA_PORTS}"]
    for disk in range(disks if hardware.disk_bus == "scsi" else 0):
        argv += ["-device", f"scsi-hd,bus=scsi.0,scsi-id=0,lun={disk},drive=disk{disk}{_boots(hardware, disk)}"]
    for extra, device in ATTACHED.items():
        argv += ["-device", device] if extra in hardware.extras else []
    return argv


def _processor(hardware: Hardware, accelerator: Accelerator) -> list[str]:
    *others, model = OPTIONS[accelerator]
    enlightened = ENLIGHTENMENTS if hardware.hyperv and accelerator == "kvm" else ()
    return [*others, ",".join((model, *enlightened))]


def _identity(hardware: Hardware) -> list[str]:
    """What the guest reads in SMBIOS, and the VM generation ID."""
    argv = ["-uuid", hardware.uuid] if hardware.uuid else []
    if hardware.serial:
        argv += ["-smbios", "type=1,serial=" + hardware.serial.replace(",", ",,")]
    return argv + (["-device", f"vmgenid,guid={hardware.genid}"] if hardware.genid else [])


def _boots(hardware: Hardware, disk: int) -> str:
    return ",bootindex=1" if disk == hardware.boot_disk else ""


def _on_sata(hardware: Hardware, disks: int) -> list[str]:
    """The devices on SATA's ports, in the domain's order."""
    found = [f"ide-hd,drive=disk{number}{_boots(hardware, number)}" for number in range(disks)]
    return (found if hardware.disk_bus == "sata" else []) + ["ide-cd"] * hardware.cdroms


def _disks(overlaid: Overlay) -> list[str]:
    """The graph is explicit, so that no header determines which file is opened, or how."""
    argv = []
    for number, (below, disk) in enumerate(zip(overlaid.below, overlaid.image.disks, strict=True)):
        file = {"driver": "file", "filename": str(disk.path), "cache": {"no-flush": True}}
        node = {"node-name": f"disk{number}", "driver": "qcow2", "file": file}
        argv += ["-blockdev", json.dumps({**node, "backing": layer(below)})]
    return argv
