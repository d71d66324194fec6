"""/etc/initramfs-tools/conf.d: the swap to resume from.

Looks for RESUME= with an unstable name. Puts the swap's stable name there: else the next initramfs that the guest
builds waits half a minute at every boot for a disk that never comes.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.fixes.fix import Case, Fix, always, regular_files, unresolved

SETTING = re.compile(r"^([ \t]*(?:RESUME|ROOT)=)([\"']?)(/dev/[^\s\"']+)(\2)", re.MULTILINE)


def stabilize(case: Case, text: str, path: str) -> tuple[str, str, list[str]]:
    """New text, what was done, warnings."""
    done, warnings = [], []

    def exchange(match: re.Match[str]) -> str:
        volume = case.devices.find(match[3])
        if not case.devices.is_unstable(match[3]):
            return match[0]
        spec = case.devices.for_kernel(volume) if volume is not None else None
        if spec is None:
            warnings.append(unresolved(path, f"{match[1].strip()}{match[3]}"))
            return match[0]
        done.append(f"{match[3]} is now {spec}")
        return match[1] + match[2] + spec + match[4]

    return SETTING.sub(exchange, text), ", ".join(done), warnings


def apply(case: Case) -> list[str]:
    warnings = []
    for path in regular_files(case, "/etc/initramfs-tools/conf.d/*", "/etc/initramfs-tools/initramfs.conf"):
        text, summary, troubles = stabilize(case, case.tree.read_text(path), path)
        case.tree.write_text(path, text, fix=FIX.name, summary=summary)
        warnings += troubles
    return warnings


FIX = Fix("resume", required=False, wanted=always, apply=apply)
