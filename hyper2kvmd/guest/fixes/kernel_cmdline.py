"""/etc/kernel/cmdline: what kernel-install writes into the entry of the next kernel.

Looks for unstable names there. Without this the repair lasts until the next kernel update. Source:
kernel-install(8).
"""

from __future__ import annotations

from hyper2kvmd.guest.fixes.fix import Case, Fix, mend_cmdline, regular_files, unless_no_grub


def apply(case: Case) -> list[str]:
    paths = regular_files(case, "/etc/kernel/cmdline", "/etc/kernel/cmdline.d/*")
    return [warning for path in paths for warning in mend_cmdline(case, FIX.name, path)]


FIX = Fix("kernel-cmdline", required=False, wanted=unless_no_grub, apply=apply)
