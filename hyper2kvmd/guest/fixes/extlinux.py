"""extlinux and syslinux: the `append` lines of their configuration.

Looks for unstable names there and puts stable ones in their place.
"""

from __future__ import annotations

from hyper2kvmd.guest.fixes.fix import Case, Fix, mend_cmdline, regular_files, unless_no_grub

PATTERNS = ("/boot/extlinux/*.conf", "/boot/syslinux/*.cfg", "/boot/extlinux.conf", "/extlinux.conf")


def apply(case: Case) -> list[str]:
    return [warning for path in regular_files(case, *PATTERNS) for warning in mend_cmdline(case, FIX.name, path)]


FIX = Fix("extlinux", required=True, wanted=unless_no_grub, apply=apply)
