"""Settings that name a disk on purpose and cannot use another name: warned about, not changed.

Looks for names of sd and hd devices, by-path and by-id links among them. It reads the configuration of hdparm, smartd,
kdump, multipath, Oracle's ASM, rc.local and local udev rules. The administrator must decide about these lines on KVM:
many should be removed.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always, regular_files

PATTERNS = (
    "/etc/hdparm.conf",
    "/etc/default/hdparm",
    "/etc/smartd.conf",
    "/etc/smartmontools/smartd.conf",
    "/etc/default/smartmontools",
    "/etc/kdump.conf",
    "/etc/multipath.conf",
    "/etc/sysconfig/rawdevices",
    "/etc/sysconfig/oracleasm",
    "/etc/rc.local",
    "/etc/rc.d/rc.local",
    "/etc/init.d/boot.local",
    "/etc/udev/rules.d/*.rules",
)
NAMED = re.compile(
    r"/dev/[sh]d[a-z]+\d*|/sys/block/[sh]d[a-z]+|/dev/disk/by-path/\S+|/dev/disk/by-id/(?!dm-|md-|lvm-)\S+"
    r"|KERNELS?==\"[sh]d[^\"]*\"|SCANORDER=\"?(?:(?!SCANORDER=)[^\"\n])*\bsd\b\"?"
)

MAX_LINE = 4096
"""Characters of a line that are searched."""


def apply(case: Case) -> list[str]:
    return [warning for path in regular_files(case, *PATTERNS) for warning in _named(case, path)]


def _named(case: Case, path: str) -> list[str]:
    """One warning per file, for its first line that names a disk."""
    for number, line in enumerate(case.tree.read_text(path).split("\n"), 1):
        if not line.lstrip().startswith("#") and (match := NAMED.search(line[:MAX_LINE])):
            return [f"{path} line {number} names {match[0]}, which is not a disk name on KVM. Adapt or remove it."]
    return []


FIX = Fix("hardware-names", required=False, wanted=always, apply=apply)
