"""/etc/crypttab: the devices to unlock at boot.

Replaces source devices whose names change on another hypervisor with the UUID of the LUKS header. Swap with a new
key at every boot has no header, so it gets the partition's own UUID. A guest that waits for /dev/sda3 there ends in
emergency mode. Sources: crypttab(5) of systemd and of Debian's cryptsetup.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    Mended,
    mend_files,
    when_stabilizing,
)

PATH = "/etc/crypttab"
LINE = re.compile(r"([ \t]*[^\s#]\S*[ \t]+)(\S+)(.*)", re.DOTALL)


def mend(case: Case, text: str, path: str) -> Mended:
    lines, done, warnings = [], [], []
    for number, line in enumerate(text.split("\n"), 1):
        match = LINE.fullmatch(line)
        if match is None or not case.devices.is_unstable(match[2]):
            lines.append(line)
            continue
        spec = _source(case, match[2])
        lines.append(line if spec is None else match[1] + spec + match[3])
        if spec is None:
            warnings.append(
                f"{path} line {number}: {match[2]} matches no volume on these disks. Write a UUID there by hand."
            )
        else:
            done.append(f"{match[2]} is now {spec}")
    return Mended("\n".join(lines), ", ".join(done), tuple(warnings))


def _source(case: Case, spec: str) -> str | None:
    volume = case.devices.find(spec)
    if volume is None:
        return None
    if volume.content == "crypto_LUKS":
        return case.devices.stable(volume)
    return case.devices.stable_path(volume, rewritten=True)


def apply(case: Case) -> list[str]:
    return mend_files(case, FIX.name, mend, PATH)


FIX = Fix("crypttab", required=True, wanted=when_stabilizing, apply=apply)
