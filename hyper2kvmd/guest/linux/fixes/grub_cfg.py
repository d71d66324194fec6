"""GRUB's own configuration: the kernel parameters of the next boot.

Replaces unstable names in `root=`, `resume=` and similar parameters in every grub.cfg (and in menu.lst of GRUB
legacy), on `linux`, `linux16`, `linuxefi` and `kernel` lines. `search --fs-uuid` lines are stable already, and
`root (hd0,0)` counts disks as the firmware does, which is right on KVM too.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, mend_cmdline, unless_no_grub

PATTERNS = (
    "/boot/grub/grub.cfg",
    "/boot/grub/custom.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/custom.cfg",
    "/boot/efi/EFI/*/grub.cfg",
    "/efi/EFI/*/grub.cfg",
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
)


def apply(case: Case) -> list[str]:
    return mend_cmdline(case, FIX.name, *PATTERNS)


FIX = Fix("grub-cfg", required=True, wanted=unless_no_grub, apply=apply)
