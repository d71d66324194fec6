"""Boot loaders whose configuration cannot be mended as text: told by name.

Looks for LILO, ELILO, zipl and yaboot where none of those is that repairs know. LILO and zipl boot from lists of
blocks that their own installer writes: only that can change what they pass to the kernel.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, regular_files, unless_no_grub

UNMENDED = {"lilo": "LILO", "elilo": "ELILO", "zipl": "zipl", "yaboot": "yaboot"}


def apply(case: Case) -> list[str]:
    if case.system.boot_loaders:
        return []
    return [
        f"the guest boots by {called}, which is not repaired; change root= in {path} and run {name} in a rescue system"
        for name, called in UNMENDED.items()
        for path in regular_files(case, f"/etc/{name}.conf")
    ]


FIX = Fix("boot-loader", required=False, wanted=unless_no_grub, apply=apply)
