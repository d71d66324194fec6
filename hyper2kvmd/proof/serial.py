"""The serial console, put on a guest's kernel lines: on a throwaway overlay alone, so that a boot can be heard.

Owns which words are added and where each boot loader keeps its kernel lines. The words come last, since the last
`console=` is the one that userspace speaks on; systemd starts a login prompt there by itself. Everything else on the
line stays: what is proven is the guest's own root=, initramfs and fstab.

Sources: kernel-parameters.txt, systemd-getty-generator(8), kernel-command-line(7).
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux.fixes import bls, extlinux, grub_cfg

WORDS = "console=ttyS0,115200 loglevel=6 systemd.show_status=1 plymouth.enable=0 no_timer_check"
"""`quiet` alone would keep the kernel and systemd off the console, and so would a splash screen.
On a busy host the timer of an emulated machine comes so late that the kernel's check of it ends in a panic ("IO-APIC +
timer doesn't work!"); on KVM a kernel leaves that check out by itself.
"""


def _ending(commands: str) -> re.Pattern[str]:
    """A line with one of these commands, up to where words can be added to it."""
    return re.compile(rf"^([ \t]*(?:{commands})[ \t]+[^\s#][^\r\n]*?)(?=[ \t\\]*\r?$)", re.MULTILINE | re.IGNORECASE)


PLACES = (
    (grub_cfg.PATTERNS, _ending("linux|linux16|linuxefi|kernel")),
    (bls.PATTERNS, _ending("options")),
    (extlinux.PATTERNS, _ending("append")),
)


def speak_on_serial(tree: GuestTree) -> tuple[str, ...]:
    """Add the serial console to every kernel line in reach and write that; the files that were changed.

    Raises MigrationFailed as all writing in a guest does.
    """
    done: dict[str, None] = {}
    for patterns, ending in PLACES:
        for path in (tree.canonical(found) for pattern in patterns for found in tree.glob(pattern)):
            if path in done or not tree.is_file(path):
                continue
            text, count = ending.subn(rf"\1 {WORDS}", tree.read_text(path))
            if count:
                tree.write_text(path, text, fix="boot-proof", summary="serial console")
                done[path] = None
    tree.commit()
    return tuple(done)
