"""Kernel command lines inside any configuration text: the devices in `root=`, `resume=` and similar parameters.

Sources: kernel-parameters.txt, dracut.cmdline(7), initramfs-tools(7); `boot=` of a kernel in FIPS mode, which does
not boot without it; `cryptdevice=` of Arch, `cryptroot=` of Alpine, `rootpartition=` of Photon's grub.cfg.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hyper2kvmd.guest.linux.devices import Devices
from hyper2kvmd.model.disks import Volume

PARAMETER = re.compile(
    r"(?<![\w./-])(root|rootpartition|resume|real_root|boot|mount\.usr|cryptroot|cryptdevice)="
    r"((?:/dev/|UUID=|LABEL=|PARTUUID=|PARTLABEL=)[^\s\"'\\,;]+)"
)
ROOTS = ("root", "rootpartition", "real_root")
"""Parameters that name the root."""


@dataclass(frozen=True)
class Rewritten:
    text: str
    summary: str
    """`root=/dev/sda1 is now root=UUID=...`, or empty."""
    unresolved: Mapping[str, str]
    """Parameters whose device is not on the disks, and why."""
    replaced: tuple[str, ...] = ()
    """Parameters with another value now, as they were."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Other names that are on none of the disks, and why."""
    cards: str = ""
    """Parameters that were added or changed for network cards."""


def named_roots(text: str) -> list[str]:
    """The devices of `root=` and its relatives, in order, without comment lines."""
    lines = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
    return [match[2] for match in PARAMETER.finditer(lines) if match[1] in ROOTS]


def stabilize(text: str, devices: Devices, *, root: Volume | None = None, without_initramfs: bool = False) -> Rewritten:
    """`text` with every unstable device of a kernel command line replaced. Comment lines do not change.

    `root` replaces the value of `root=` whatever disk its name would mean, if the text names no other root.
    """
    only = root if len({match[2] for match in PARAMETER.finditer(text) if match[1] == "root"}) == 1 else None
    done: dict[str, str] = {}
    unresolved: dict[str, str] = {}

    def exchange(match: re.Match[str]) -> str:
        device, colon, mapping = match[2].partition(":") if match[1] == "cryptdevice" else (match[2], "", "")
        if not devices.is_unstable(device):
            why = None if "$" in device else devices.absent(device)
            if why is not None:
                unresolved[match[0]] = why
            return match[0]
        candidates = (only if match[1] == "root" else None, devices.find(device))
        specs = [devices.for_kernel(volume, without_initramfs=without_initramfs) for volume in candidates if volume]
        spec = next((spec for spec in specs if spec), None)
        if spec is None:
            unresolved[match[0]] = devices.absent(device) or "has no UUID or label"
            return match[0]
        done[match[0]] = f"{match[1]}={spec}{colon}{mapping}"
        return done[match[0]]

    lines = [line if line.lstrip().startswith("#") else PARAMETER.sub(exchange, line) for line in text.split("\n")]
    summary = ", ".join(f"{before} is now {after}" for before, after in done.items())
    return Rewritten("\n".join(lines), summary, unresolved, tuple(done))
