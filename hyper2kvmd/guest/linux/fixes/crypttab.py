"""/etc/crypttab: the devices to unlock at boot.

Replaces source devices whose names change on another hypervisor with the UUID of the LUKS header. Swap with a new
key at every boot has no header, so it gets the partition's own UUID. A guest that waits for /dev/sda3 there ends in
emergency mode. Sources: crypttab(5) of systemd and of Debian's cryptsetup.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import (
    BY_HAND,
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
        spec = _source(case, match[2]) if match and case.devices.is_unstable(match[2]) else None
        if match is None or spec is None:
            lines.append(line)
            warnings += _troubles(case, match, f"{path} line {number}") if match else []
            continue
        lines.append(match[1] + spec + match[3])
        done.append(f"{match[2]} is now {spec}")
    return Mended("\n".join(lines), ", ".join(done), tuple(warnings))


def _troubles(case: Case, match: re.Match[str], place: str) -> list[str]:
    """The warning about a device that is not on the disks, or has no stable name."""
    why = case.devices.absent(match[2]) or ("has no stable name" if case.devices.is_unstable(match[2]) else None)
    if why is None:
        return []
    optional = re.search(r"[\s,](nofail|noauto)\b", match[3])
    effect = f"the guest boots without it ({optional[1]})" if optional else "the guest waits for it when it boots"
    return [f"{place}: {match[2]} {why}: {effect}. {BY_HAND}"]


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
