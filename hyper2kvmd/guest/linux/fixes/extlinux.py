"""extlinux and syslinux: the `append` lines of their configuration, and the files it is generated from.

Replaces unstable names with stable ones there, in update-extlinux.conf of Alpine and in /etc/default/extlinux of
Debian.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, mend_cmdline, unless_no_grub

PATTERNS = (
    "/boot/extlinux/*.conf",
    "/boot/syslinux/*.cfg",
    "/boot/extlinux.conf",
    "/extlinux.conf",
    "/etc/update-extlinux.conf",
    "/etc/default/extlinux",
)


def apply(case: Case) -> list[str]:
    return mend_cmdline(case, FIX.name, *PATTERNS)


FIX = Fix("extlinux", required=True, wanted=unless_no_grub, apply=apply)
