"""Whether KVM runs a guest on this host. In a virtual machine, the device node alone proves nothing."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from pathlib import Path

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.run import Sandbox, run

EMULATOR = "qemu-system-x86_64"
KVM_DEVICE = Path("/dev/kvm")
READABLE = tuple(Path(path) for path in ("/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe"))
"""Files of QEMU that it reads."""
PROBE_SECONDS = 2.0
"""Working KVM needs a tenth of this. Nested KVM that needs more is slower than emulation, if it works at all."""
EXIT_PORT = 0xF4
PROBE_VALUE = 0x21
PROBE_EXIT = PROBE_VALUE << 1 | 1
"""QEMU's exit status for the value (isa-debug-exit)."""
BOOT_SECTOR = bytes((0xBA, EXIT_PORT, 0, 0xB0, PROBE_VALUE, 0xEE, 0xF4, 0xEB, 0xFD))
"""mov dx, port; mov al, value; out dx, al; then hlt for ever."""


@functools.cache
def kvm_works() -> bool:
    """Whether a boot sector really runs under KVM here."""
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
            return run(argv, sandbox=sandbox, stall_seconds=PROBE_SECONDS, check=False).returncode == PROBE_EXIT
    return False
