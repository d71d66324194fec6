"""Kernel command lines inside any configuration text: the devices in `root=`, `resume=` and similar parameters.

Sources: kernel-parameters.txt, dracut.cmdline(7), initramfs-tools(7); `boot=` of a kernel in FIPS mode, which does
not boot without it; `cryptdevice=` of Arch, `cryptroot=` of Alpine, `rootpartition=` of Photon's grub.cfg.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hyper2kvmd.guest.linux.devices import Devices
from hyper2kvmd.model.disks import Volume

PARAMETER = re.compile(
    r"(?<![\w./-])(root|rootpartition|resume|real_root|boot|mount\.usr|cryptroot|cryptdevice)=(/dev/[^\s\"'\\,;]+)"
)


@dataclass(frozen=True)
class Rewritten:
    text: str
    summary: str
    """`root=/dev/sda1 is now root=UUID=...`, or empty."""
    unresolved: tuple[str, ...]
    """Parameters whose device cannot be determined."""


def stabilize(text: str, devices: Devices, *, root: Volume | None = None, without_initramfs: bool = False) -> Rewritten:
    """`text` with every unstable device of a kernel command line replaced. Comment lines do not change.

    `root` replaces a `root=` that cannot be resolved, if the text names no other root.
    """
    roots = {match[2] for match in PARAMETER.finditer(text) if match[1] == "root"}
    fallback = root if len(roots) == 1 else None
    done: dict[str, str] = {}
    unresolved: dict[str, None] = {}

    def exchange(match: re.Match[str]) -> str:
        device, colon, mapping = match[2].partition(":") if match[1] == "cryptdevice" else (match[2], "", "")
        if not devices.is_unstable(device):
            return match[0]
        candidates = (devices.find(device), fallback if match[1] == "root" else None)
        specs = [devices.for_kernel(volume, without_initramfs=without_initramfs) for volume in candidates if volume]
        spec = next((spec for spec in specs if spec), None)
        if spec is None:
            unresolved[match[0]] = None
            return match[0]
        done[match[0]] = f"{match[1]}={spec}{colon}{mapping}"
        return done[match[0]]

    lines = [line if line.lstrip().startswith("#") else PARAMETER.sub(exchange, line) for line in text.split("\n")]
    summary = ", ".join(f"{before} is now {after}" for before, after in done.items())
    return Rewritten("\n".join(lines), summary, tuple(unresolved))
