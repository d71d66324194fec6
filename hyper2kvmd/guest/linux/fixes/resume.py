"""/etc/initramfs-tools/conf.d: the swap to resume from.

Replaces an unstable name in RESUME= with the swap's stable name. Otherwise, the next initramfs that the guest builds
would wait half a minute at every boot for a disk that never appears.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import (
    BY_HAND,
    Case,
    Fix,
    Mended,
    always,
    mend_files,
)

SETTING = re.compile(r"^([ \t]*(?:RESUME|ROOT)=)([\"']?)((?:/dev/|UUID=|LABEL=|PARTUUID=)[^\s\"']+)(\2)", re.MULTILINE)


def mend(case: Case, text: str, path: str) -> Mended:
    done: list[str] = []
    warnings: list[str] = []

    def exchange(match: re.Match[str]) -> str:
        volume, why = case.devices.find(match[3]), case.devices.absent(match[3])
        if not case.devices.is_unstable(match[3]):
            warnings.extend([f"{path}: {match[1].strip()}{match[3]} {why}. {BY_HAND}"] if why else [])
            return match[0]
        spec = case.devices.for_kernel(volume) if volume is not None else None
        if spec is None:
            warnings.append(f"{path}: {match[1].strip()}{match[3]} {why or 'has no UUID or label'}. {BY_HAND}")
            return match[0]
        done.append(f"{match[3]} is now {spec}")
        return match[1] + match[2] + spec + match[4]

    return Mended(SETTING.sub(exchange, text), ", ".join(done), tuple(warnings))


def apply(case: Case) -> list[str]:
    return mend_files(case, FIX.name, mend, "/etc/initramfs-tools/conf.d/*", "/etc/initramfs-tools/initramfs.conf")


FIX = Fix("resume", required=False, wanted=always, apply=apply)
