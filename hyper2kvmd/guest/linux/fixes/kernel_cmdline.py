"""Command lines of the next kernel: /etc/kernel/cmdline for kernel-install, `kernel_cmdline` for dracut.

Looks for unstable names there. Without this, the repair lasts only until the next kernel update. Sources:
kernel-install(8), dracut.conf(5).
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, mend_cmdline, unless_no_grub

PATTERNS = ("/etc/kernel/cmdline", "/etc/kernel/cmdline.d/*", "/etc/dracut.conf", "/etc/dracut.conf.d/*.conf")


def apply(case: Case) -> list[str]:
    return mend_cmdline(case, FIX.name, *PATTERNS)


FIX = Fix("kernel-cmdline", required=False, wanted=unless_no_grub, apply=apply)
