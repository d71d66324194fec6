"""Whether KVM runs a guest on this host. In a virtual machine, the device node alone proves nothing."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.boot_sector import CODE, EXIT_PORT, PROBE_VALUE, boot_sector
from hyper2kvmd.host.run import Sandbox, run
from hyper2kvmd.host.scratch import scratch_folder

EMULATOR = "qemu-system-x86_64"
KVM_DEVICE = Path("/dev/kvm")
READABLE = tuple(Path(path) for path in ("/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe"))
"""Files of QEMU that it reads."""
PROBE_SECONDS = 2.0
"""Working KVM needs a tenth of this. Nested KVM that needs more is slower than emulation, if it works at all."""
PROBE_EXIT = PROBE_VALUE << 1 | 1
"""QEMU's exit status for the value (isa-debug-exit)."""
PROBE_DISK_BYTES = 1 << 20
Accelerator = Literal["kvm", "tcg"]
"""What executes a guest: KVM, or QEMU's emulation."""
OPTIONS: Mapping[Accelerator, tuple[str, ...]] = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg", "-cpu", "max"),
}


def choose_accelerator() -> Accelerator:
    return "kvm" if kvm_works() else "tcg"


@functools.cache
def kvm_works() -> bool:
    """Whether a program really runs under KVM here. The answer holds as long as this process."""
    return os.access(KVM_DEVICE, os.R_OK | os.W_OK) and executes("kvm", PROBE_SECONDS)


def executes(accelerator: Accelerator, seconds: float, code: bytes = CODE) -> bool:
    """Whether a boot sector with this machine code comes to its end, and is not idle for `seconds`."""
    with scratch_folder() as folder:
        disk = folder / "disk"
        disk.write_bytes(boot_sector(code).ljust(PROBE_DISK_BYTES, b"\0"))
        argv = [EMULATOR, "-no-user-config", "-nodefaults", "-display", "none", "-machine", "q35", "-m", "64"]
        argv += [*OPTIONS[accelerator], "-device", f"isa-debug-exit,iobase={EXIT_PORT},iosize=1"]
        argv += ["-blockdev", json.dumps({"node-name": "disk", "driver": "file", "filename": str(disk)})]
        argv += ["-device", "virtio-blk-pci,drive=disk"]
        sandbox = Sandbox(read=READABLE, write=(folder, KVM_DEVICE))
        with contextlib.suppress(MigrationFailed):
            return run(argv, sandbox=sandbox, stall_seconds=seconds, check=False).returncode == PROBE_EXIT
    return False
