"""/etc/default/grub: the input of the guest's next update-grub; /etc/sysconfig/bootloader of SLES 11 likewise.

Looks for unstable names in GRUB_CMDLINE_LINUX*, GRUB_DEVICE* and DEFAULT_APPEND. Without this, the repair lasts only
until the next kernel update.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import (
    BY_HAND,
    Case,
    Fix,
    Mended,
    mend_files,
    stabilized,
    unless_no_grub,
    unresolved,
)

DEVICE = re.compile(r"^([ \t]*(?:export[ \t]+)?GRUB_DEVICE(?:_BOOT)?=)([\"']?)(/dev/[^\s\"']+)", re.MULTILINE)

PATTERNS = ("/etc/default/grub", "/etc/default/grub.d/*.cfg", "/etc/sysconfig/bootloader")


def mend(case: Case, text: str, path: str) -> Mended:
    rewritten = stabilized(case, text)
    done = [rewritten.summary] if rewritten.summary else []
    warnings = unresolved(path, rewritten)

    def exchange(match: re.Match[str]) -> str:
        """grub-probe examines the device itself, so this one stays a path."""
        volume = case.devices.find(match[3])
        if why := case.devices.absent(match[3]):
            warnings.append(f"{path}: {match[1].strip()}{match[3]} {why}. {BY_HAND}")
        if not case.devices.is_unstable(match[3]) or volume is None or not volume.uuid:
            return match[0]
        done.append(f"{match[3]} is now its by-uuid link")
        return f"{match[1]}{match[2]}/dev/disk/by-uuid/{volume.uuid}"

    return Mended(DEVICE.sub(exchange, rewritten.text), ", ".join(done), tuple(warnings))


def apply(case: Case) -> list[str]:
    return mend_files(case, FIX.name, mend, *PATTERNS)


FIX = Fix("grub-default", required=False, wanted=unless_no_grub, apply=apply)
