"""Boot loaders whose configuration cannot be repaired as text: a warning names them.

Looks for LILO, ELILO, zipl and yaboot if the guest has no supported boot loader. LILO and zipl boot from lists of
blocks that their own installer writes: only the installer can change their kernel parameters.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, regular_files, unless_no_grub

UNMENDED = {"lilo": "LILO", "elilo": "ELILO", "zipl": "zipl", "yaboot": "yaboot"}


def apply(case: Case) -> list[str]:
    if case.system.boot_loaders:
        return []
    return [
        f"the guest boots by {called}, which is not repaired. Change root= in {path} and run {name} in a rescue system"
        for name, called in UNMENDED.items()
        for path in regular_files(case, f"/etc/{name}.conf")
    ]


FIX = Fix("boot-loader", required=False, wanted=unless_no_grub, apply=apply)
