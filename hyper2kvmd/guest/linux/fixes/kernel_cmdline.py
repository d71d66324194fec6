"""/etc/kernel/cmdline: the command line that kernel-install writes into the entry of the next kernel.

Looks for unstable names there. Without this, the repair lasts only until the next kernel update. Source:
kernel-install(8).
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, mend_cmdline, unless_no_grub


def apply(case: Case) -> list[str]:
    return mend_cmdline(case, FIX.name, "/etc/kernel/cmdline", "/etc/kernel/cmdline.d/*")


FIX = Fix("kernel-cmdline", required=False, wanted=unless_no_grub, apply=apply)
