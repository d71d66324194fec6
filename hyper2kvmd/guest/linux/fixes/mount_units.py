"""systemd's own units for mounts and swap: `What=` in /etc/systemd/system.

Replaces unstable names there with a by-uuid or by-partuuid link. As with fstab, the guest would otherwise wait for a
device that never appears. Sources: systemd.mount(5), systemd.swap(5).
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

WHAT = re.compile(r"^([ \t]*What[ \t]*=[ \t]*)((?:/dev/|UUID=|LABEL=|PARTUUID=|PARTLABEL=)\S+)", re.MULTILINE)


def mend(case: Case, text: str, path: str) -> Mended:
    done: list[str] = []
    warnings: list[str] = []

    def exchange(match: re.Match[str]) -> str:
        volume, why = case.devices.find(match[2]), case.devices.absent(match[2])
        if why is not None:
            warnings.append(f"{path}: {match[2]} {why}. Correct the unit, or disable it.")
        if volume is None or not case.devices.is_unstable(match[2]):
            return match[0]
        spec = case.devices.stable_path(volume)
        if spec is None:
            warnings.append(f"{path}: {match[2]} has no UUID. Correct the unit, or disable it.")
            return match[0]
        done.append(f"{match[2]} is now {spec}")
        return match[1] + spec

    return Mended(WHAT.sub(exchange, text), ", ".join(done), tuple(warnings))


def apply(case: Case) -> list[str]:
    return mend_files(case, FIX.name, mend, "/etc/systemd/system/*.mount", "/etc/systemd/system/*.swap")


FIX = Fix("mount-units", required=True, wanted=when_stabilizing, apply=apply)
