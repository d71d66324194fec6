"""With `no_grub: true`: what stays on the kernel lines although it is wrong on KVM. Warnings only.

Looks for devices whose names change, for volumes that are on none of the disks, and for network cards that dracut's
initramfs uses by name. `kernel-root` reports the root itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hyper2kvmd.guest.linux.cmdline import ROOTS
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, stabilized, unresolved
from hyper2kvmd.guest.linux.fixes.kernel_root import texts
from hyper2kvmd.model.asked import Migration


def when_no_grub(migration: Migration) -> bool:
    return migration.no_grub


def apply(case: Case) -> list[str]:
    return [warning for path, text in texts(case) for warning in _left(case, path, text)]


def _left(case: Case, path: str, text: str) -> Iterator[str]:
    rewritten = stabilized(case, text)
    others = {name: why for name, why in rewritten.unresolved.items() if not _is_root(name)}
    yield from unresolved(path, replace(rewritten, unresolved=others))
    for name in rewritten.replaced:
        if not _is_root(name):
            yield f"{path}: {name} is not a name on KVM, and no_grub: true leaves it. Write a UUID there by hand."
    if rewritten.cards:
        yield (
            f"{path}: the initramfs does not find its network card on KVM, and no_grub: true leaves the kernel line. "
            f"Add {rewritten.cards} to it by hand."
        )


def _is_root(parameter: str) -> bool:
    return parameter.partition("=")[0] in ROOTS


FIX = Fix("kernel-left", required=False, wanted=when_no_grub, apply=apply)
