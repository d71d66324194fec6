"""Adds the serial console to a guest's kernel lines, only on a throwaway overlay, to get output of a boot.

Defines the added words, and the places where each boot loader keeps its kernel lines. The words come last, since
userspace uses the last `console=`; systemd starts a login prompt there by itself. Everything else on the line stays:
the proof is about the guest's own root=, initramfs and fstab.

Sources: kernel-parameters.txt, systemd-getty-generator(8), kernel-command-line(7).
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux.fixes import bls, extlinux, grub_cfg

WORDS = "console=ttyS0,115200 loglevel=6 systemd.show_status=1 plymouth.enable=0 no_timer_check"
"""`quiet` alone would keep the kernel and systemd off the console, and so would a splash screen.
On a busy host the timer of an emulated machine comes so late that the kernel's check of it ends in a panic ("IO-APIC +
timer doesn't work!"). On KVM a kernel skips that check by itself.
"""


def _ending(commands: str) -> re.Pattern[str]:
    """A line with one of these commands, up to the place for added words."""
    words = r"[^\s#](?:[ \t\\]*+[^ \t\\\r\n])*+"
    return re.compile(rf"^([ \t]*(?:{commands})[ \t]+{words})(?=[ \t\\]*\r?$)", re.MULTILINE | re.IGNORECASE)


PLACES = (
    (grub_cfg.PATTERNS, _ending("linux|linux16|linuxefi|kernel")),
    (bls.PATTERNS, _ending("options")),
    (extlinux.PATTERNS, _ending("append")),
)


def speak_on_serial(tree: GuestTree) -> tuple[str, ...]:
    """Add the serial console to every kernel line in reach and write that; returns the changed files.

    Raises MigrationFailed as every write to a guest does.
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
