"""GRUB's environment block: `kernelopts` of RHEL 8 and Fedora, which every BLS entry there refers to.

Looks for unstable names in it. The block is 1024 bytes, padded with `#`, and must keep that size: GRUB writes into it
in place.
"""

from __future__ import annotations

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    regular_files,
    stabilized,
    unless_no_grub,
    unresolved,
)

PATTERNS = ("/boot/grub/grubenv", "/boot/grub2/grubenv", "/boot/efi/EFI/*/grubenv", "/efi/EFI/*/grubenv")
SIGNATURE = "# GRUB Environment Block\n"


def apply(case: Case) -> list[str]:
    warnings = []
    for path in regular_files(case, *PATTERNS):
        block = case.tree.read_text(path)
        if not block.startswith(SIGNATURE):
            continue
        rewritten = stabilized(case, block.rstrip("#"))
        warnings += unresolved(path, rewritten)
        size = len(_bytes(block))
        used = len(_bytes(rewritten.text))
        if used > size:
            raise MigrationFailed(
                "grubenv-full",
                f"the guest's {path} has {size} bytes, {used} are needed for stable names",
                hint="Remove variables from it in the guest (grub-editenv), or set no_grub: true",
            )
        if rewritten.summary:
            text = rewritten.text + "#" * (size - used)
            case.tree.write_text(path, text, fix=FIX.name, summary=rewritten.summary)
    return warnings


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


FIX = Fix("grubenv", required=True, wanted=unless_no_grub, apply=apply)
