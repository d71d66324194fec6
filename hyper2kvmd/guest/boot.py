"""Owns the proof that an image boots: on a virtio disk, on a throwaway overlay, read from its serial console.

The image itself is opened read-only. The guest gets no network. What ends the wait is what the console says, or
that it says nothing new: a slow host is not a failure.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import select
import shutil
import tempfile
import time
from pathlib import Path
from typing import Literal

from hyper2kvmd.errors import BrokenInstallation, MigrationFailed
from hyper2kvmd.model import Frozen
from hyper2kvmd.progress import Context
from hyper2kvmd.run import Sandbox, run, start, stop

EMULATOR = "qemu-system-x86_64"
KVM_DEVICE = Path("/dev/kvm")
FIRMWARE_DESCRIPTORS = Path("/usr/share/qemu/firmware")
"""One JSON file per firmware: docs/interop/firmware.json in QEMU's source."""
READABLE = tuple(Path(path) for path in ("/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe"))
SILENCE_SECONDS = 200.0
"""Longer than the waits that a Linux boot does in silence: 90 s for a device in systemd, 180 s in dracut."""
SETTLED_SECONDS = 20.0
"""How long a guest that has reached its last target may take for its login prompt."""
RESTARTS = 2
"""A first boot may end in a restart, after an SELinux relabel for one."""
MEMORY_CAP, VCPU_CAP = 4096, 4
"""MiB and CPUs: the boot proves the disk, not the size of the guest."""
OVERLAY_LIMIT = 16 << 30
CONSOLE_LIMIT = 32 << 20
"""Bytes: no boot says more, so this is a loop."""
CONSOLE_KEPT = 1 << 18
"""Characters: four times what a talkative boot prints."""
TAIL_LINES = 12
KVM_PROBE_SECONDS = 2.0
"""Working KVM needs a tenth of this. A nested one that needs more is slower than emulation, where it works at all."""

ESCAPES = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[a-zA-Z=>]|[\x00-\x08\x0b-\x1a\x1c-\x1f]")
LOGIN = re.compile(r"^(\S+) login: ?", re.IGNORECASE | re.MULTILINE)
TARGET = re.compile(r"Reached target.*?((?:Multi-User System|Graphical Interface|Login Prompts)\b)")
KERNEL = re.compile(r"Linux version (\S+)")
SPOKE = re.compile(r"Linux version|^\[ *\d+\.\d+\]|systemd\[1\]|^Welcome to|Reached target", re.MULTILINE)
FAILED_UNIT = re.compile(r"\[FAILED\] Failed to (?:start|mount|activate) (.+?)\.?\s*$", re.MULTILINE)


class Sign(Frozen):
    """Something on a console that means: this will never boot."""

    pattern: str
    fact: str
    hint: str


NO_ROOT = "let the repair add virtio drivers and stable names (regen_initramfs: true, fstab_mode: stabilize-all)"
NO_LOADER = "check that firmware and boot loader fit together (uefi: true or false), and that this is the boot disk"
SIGNS = (
    Sign(pattern=r"^\(initramfs\)", fact="it stopped in the initramfs shell: no root file system", hint=NO_ROOT),
    Sign(pattern=r"^dracut:/#|Entering emergency mode", fact="it stopped in dracut's emergency shell", hint=NO_ROOT),
    Sign(pattern=r"Kernel panic - not syncing", fact="its kernel panicked", hint="read the console lines above"),
    Sign(
        pattern=r"You are in emergency mode|Give root password for|Cannot open access to console",
        fact="it stopped in emergency mode",
        hint="read the console lines above: a mount in its fstab most likely names a disk that is not there",
    ),
    Sign(
        pattern=r"grub(?: rescue)?>|^ *Minimal BASH-like line editing",
        fact="it stopped in GRUB's own shell",
        hint=NO_LOADER,
    ),
    Sign(
        pattern=r"No bootable device|Boot failed: not a bootable disk|No bootable option|^Shell>",
        fact="its firmware found nothing to boot",
        hint=NO_LOADER,
    ),
)


class Booted(Frozen):
    """How a boot went that reached its end."""

    seconds: float
    console_tail: tuple[str, ...]
    evidence: tuple[str, ...]
    failed_units: tuple[str, ...] = ()


class Console:
    """What the guest has said so far. Only text that it has not said before counts as progress."""

    def __init__(self) -> None:
        self.received = 0
        self._text = ""
        self._known: set[str] = set()
        self._heard_seconds = time.monotonic()

    def feed(self, data: bytes) -> None:
        self.received += len(data)
        start = self._text.rfind("\n") + 1
        self._text += ESCAPES.sub("", data.decode(errors="replace").replace("\r", "\n"))
        for line in self._text[start:].splitlines():
            shape = re.sub(r"[\d* ]+", "", line)
            if shape and shape not in self._known:
                self._known.add(shape)
                self._heard_seconds = time.monotonic()
        self._text = self._text[-CONSOLE_KEPT:]

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self._text)

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self._heard_seconds

    @property
    def tail(self) -> tuple[str, ...]:
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return tuple(lines[-TAIL_LINES:])


def boot(
    image: Path,
    image_format: Literal["qcow2", "raw"],
    *,
    firmware: Literal["bios", "uefi"],
    folder: Path,
    ctx: Context,
    machine: str | None = None,
    memory: int = 2048,
    vcpus: int = 2,
    silence_seconds: float = SILENCE_SECONDS,
) -> Booted:
    """Boot `image` and return when it shows a login prompt; `memory` in MiB, capped. Scratch files go to `folder`.

    Raises MigrationFailed: `boot-failed` when it cannot come up, `boot-unproven` when it never spoke on its
    serial console; BrokenInstallation (`tool-missing`, `firmware-missing`).
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="boot-", dir=folder) as name:
        scratch = Path(name)
        overlay = scratch / "overlay.qcow2"
        run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", image_format, "-b", str(image), str(overlay)],
            sandbox=Sandbox(read=(image,), write=(scratch,)),
        )
        kvm = kvm_works()
        argv = [EMULATOR, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]
        argv += ["-machine", f"{machine or 'q35'},graphics=off", "-nic", "none", "-monitor", "none"]
        argv += ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
        argv += ["-m", str(min(memory, MEMORY_CAP)), "-smp", str(min(vcpus, VCPU_CAP, os.cpu_count() or 1))]
        argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
        argv += [
            "-vga",
            "std",
            "-serial",
            "stdio",
            "-object",
            "rng-builtin,id=rng",
            "-device",
            "virtio-rng-pci,rng=rng",
        ]
        argv += _disk(image, image_format, overlay)
        readable = (image, *READABLE)
        if firmware == "uefi":
            code, variables = uefi_firmware()
            shutil.copyfile(variables, scratch / "vars.fd")
            argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
            argv += ["-drive", f"if=pflash,format=raw,file={scratch / 'vars.fd'}"]
            readable = (*readable, code)
        sandbox = Sandbox(
            read=readable,
            write=(scratch, KVM_DEVICE) if kvm else (scratch,),
            address_space=(MEMORY_CAP << 20) + (8 << 30),
            file_size=OVERLAY_LIMIT,
        )
        with ctx.step(f"Booting {image.name} on a virtio disk"):
            for _ in range(1 + RESTARTS):
                booted = _watch(argv, sandbox, began, silence_seconds, "KVM" if kvm else "emulation")
                if booted is not None:
                    for unit in booted.failed_units:
                        ctx.warn(f"the guest booted, but failed to start {unit}")
                    return booted
    raise MigrationFailed(
        "boot-failed",
        f"{image.name} restarted itself {RESTARTS + 1} times before its login prompt",
        hint="boot it by hand on a console to see why it restarts",
    )


def _disk(image: Path, image_format: str, overlay: Path) -> list[str]:
    """The graph is spelt out, so that no header decides which file is opened, or how."""
    nodes: list[dict[str, object]] = [
        {"node-name": "image-file", "driver": "file", "filename": str(image), "read-only": True},
        {"node-name": "image", "driver": image_format, "file": "image-file", "read-only": True},
        {"node-name": "overlay-file", "driver": "file", "filename": str(overlay), "cache": {"no-flush": True}},
        {"node-name": "overlay", "driver": "qcow2", "file": "overlay-file", "backing": "image"},
    ]
    if image_format == "qcow2":
        nodes[1]["backing"] = None
    words = []
    for node in nodes:
        words += ["-blockdev", json.dumps(node)]
    return [*words, "-device", "virtio-blk-pci,drive=overlay,bootindex=1"]


def _watch(argv: list[str], sandbox: Sandbox, began: float, silence_seconds: float, by: str) -> Booted | None:
    """One run of the emulator up to its verdict; None when the guest restarted or powered itself off."""
    console = Console()
    process = start(argv, sandbox=sandbox)
    assert process.stdout is not None  # noqa: S101 - narrows the type
    try:
        while True:
            ready, _, _ = select.select([process.stdout], [], [], 1.0)
            data = os.read(process.stdout.fileno(), 65536) if ready else b""
            console.feed(data)
            text = console.text
            login, target = LOGIN.search(text), TARGET.search(text)
            if login or (target and console.silent_seconds > SETTLED_SECONDS):
                seconds = round(time.monotonic() - began, 1)
                return Booted(
                    seconds=seconds,
                    console_tail=console.tail,
                    evidence=_evidence(text, seconds, by),
                    failed_units=tuple(dict.fromkeys(FAILED_UNIT.findall(text))),
                )
            for sign in SIGNS:
                if re.search(sign.pattern, text, re.MULTILINE):
                    raise _failure(console, sign.fact, sign.hint)
            if ready and not data:
                if process.wait() == 0:
                    return None
                raise _failure(
                    console, "the emulator ended", "the message is the emulator's own; correct what it names"
                )
            if console.received > CONSOLE_LIMIT:
                raise _failure(console, "its console never comes to rest", "boot it by hand on a console to see why")
            if console.silent_seconds > silence_seconds:
                raise _silence(console, silence_seconds)
    finally:
        stop(process, grace=0)


def _evidence(text: str, seconds: float, by: str) -> tuple[str, ...]:
    found = []
    if kernel := KERNEL.search(text):
        found.append(f"its kernel {kernel[1]} started from a virtio disk, by {by}")
    found += [f"it reached the target {name}" for name in dict.fromkeys(TARGET.findall(text))]
    if login := LOGIN.search(text):
        found.append(f"{login[1]} asked for a login on its serial console after {seconds:.0f} s")
    return tuple(found)


def _failure(console: Console, fact: str, hint: str, code: str = "boot-failed") -> MigrationFailed:
    last = " / ".join(console.tail) or "nothing"
    return MigrationFailed(code, f"the guest did not boot: {fact}; its console ended with: {last}", hint=hint)


def _silence(console: Console, seconds: float) -> MigrationFailed:
    if SPOKE.search(console.text):
        return _failure(console, f"nothing new for {seconds:.0f} s", "read the console lines above")
    hint = "give its kernel console=ttyS0,115200 so that it can be heard, or ask for verify: content"
    return _failure(console, f"it said nothing on its serial console for {seconds:.0f} s", hint, "boot-unproven")


# ---------------------------------------------------------------- the host


EXIT_PORT = 0xF4
PROBE_VALUE = 0x21
PROBE_EXIT = PROBE_VALUE << 1 | 1
"""What QEMU's isa-debug-exit makes of the value."""
BOOT_SECTOR = bytes((0xBA, EXIT_PORT, 0, 0xB0, PROBE_VALUE, 0xEE, 0xF4, 0xEB, 0xFD))
"""mov dx, port; mov al, value; out dx, al; then hlt for ever."""


@functools.cache
def kvm_works() -> bool:
    """Whether a guest really runs under KVM here. The device node alone proves nothing in a nested machine."""
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryDirectory(prefix="h2k-kvm-") as name:
        sector = Path(name) / "sector"
        sector.write_bytes((BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
        argv = [EMULATOR, "-no-user-config", "-nodefaults", "-display", "none", "-machine", "q35", "-m", "64"]
        argv += ["-accel", "kvm", "-cpu", "host", "-device", f"isa-debug-exit,iobase={EXIT_PORT},iosize=1"]
        argv += ["-blockdev", json.dumps({"node-name": "disk", "driver": "file", "filename": str(sector)})]
        argv += ["-device", "virtio-blk-pci,drive=disk"]
        sandbox = Sandbox(read=READABLE, write=(Path(name), KVM_DEVICE))
        with contextlib.suppress(MigrationFailed):
            return run(argv, sandbox=sandbox, stall_seconds=KVM_PROBE_SECONDS, check=False).returncode == PROBE_EXIT
    return False


def uefi_firmware() -> tuple[Path, Path]:
    """OVMF's code and its pristine variables, without Secure Boot, by the descriptors that QEMU and libvirt read."""
    for descriptor in sorted(FIRMWARE_DESCRIPTORS.glob("*.json")):
        firmware = json.loads(descriptor.read_bytes())
        machines = {machine for target in firmware["targets"] for machine in target["machines"]}
        mapping = firmware["mapping"]
        if (
            "uefi" in firmware["interface-types"]
            and "pc-q35-*" in machines
            and mapping["device"] == "flash"
            and mapping["executable"]["format"] == "raw"
            and not {"requires-smm", "enrolled-keys"} & set(firmware["features"])
        ):
            return Path(mapping["executable"]["filename"]), Path(mapping["nvram-template"]["filename"])
    raise BrokenInstallation(
        "firmware-missing", "no UEFI firmware for virtual machines is installed", hint="install the package ovmf"
    )
