"""Boot loader entries (BLS): one kernel each, for GRUB on Red Hat's family and for systemd-boot.

Looks for unstable names on `options` lines in loader/entries of /boot and of the EFI partition. Puts stable names
there. Source: the Boot Loader Specification.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.entries import BOOTS
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, mend_cmdline, unless_no_grub

PATTERNS = tuple(f"{boot}/loader/entries/*.conf" for boot in BOOTS)


def apply(case: Case) -> list[str]:
    return mend_cmdline(case, FIX.name, *PATTERNS)


FIX = Fix("bls", required=True, wanted=unless_no_grub, apply=apply)
