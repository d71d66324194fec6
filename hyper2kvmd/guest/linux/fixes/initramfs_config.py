"""Configuration of the guest's initramfs builder: virtio in every future initramfs.

Adds the virtio modules to the configuration of initramfs-tools, dracut (`add_drivers` also works if it is host-only),
mkinitcpio, Alpine's mkinitfs and mkinitrd of SLES 11. A kernel update that builds for the hardware it finds would
include them anyway; one in a chroot or rescue system would not.
Sources: initramfs-tools(7), dracut.conf(5), mkinitcpio(8), the comments of mkinitfs.conf and /etc/sysconfig/kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyper2kvmd.guest.linux.fixes import nic_names
from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    Mended,
    Mender,
    mend_files,
    when_regenerating,
)

MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net")
NOTE = "# Added by hyper2kvm: this guest runs on KVM."
INITRAMFS_TOOLS = "/etc/initramfs-tools/modules"
DRACUT = "/etc/dracut.conf.d/90-hyper2kvm.conf"
HOOK = "/etc/initramfs-tools/hooks/hyper2kvm-net"
HOOK_TEXT = f"""\
#!/bin/sh
{NOTE}
# The initramfs uses network cards by name.
[ "$1" = prereqs ] && exit 0
mkdir -p "$DESTDIR/etc/udev/rules.d"
cp {nic_names.RULES} "$DESTDIR/etc/udev/rules.d/"
"""
CLOSING = re.compile(r"[)\"']")
SUMMARY = "the next initramfs will include virtio"


def apply(case: Case) -> list[str]:
    tree = case.tree
    if tree.is_dir("/etc/initramfs-tools"):
        text = tree.text_or_empty(INITRAMFS_TOOLS)
        listed = {line.split()[0] for line in text.split("\n") if line.strip() and not line.startswith("#")}
        lines = [name for name in MODULES if name not in listed]
        if lines:
            start = text if text.endswith("\n") or not text else text + "\n"
            tree.write_text(INITRAMFS_TOOLS, start + "\n".join([NOTE, *lines, ""]), fix=FIX.name, summary=SUMMARY)
        if nic_names.early_rules(case):
            summary = "the next initramfs will name network cards"
            tree.write_text(HOOK, HOOK_TEXT, fix=FIX.name, summary=summary, mode=0o755)
    if case.survey.dracut:
        text = f'{NOTE}\nadd_drivers+=" {" ".join(MODULES)} "\n'
        tree.write_text(DRACUT, text, fix=FIX.name, summary=SUMMARY)
    return [
        *mend_files(case, FIX.name, _with("MODULES", MODULES), "/etc/mkinitcpio.conf"),
        *mend_files(case, FIX.name, _with("INITRD_MODULES", MODULES), "/etc/sysconfig/kernel"),
        *mend_files(case, FIX.name, _with("features", ("virtio",)), "/etc/mkinitfs/mkinitfs.conf"),
    ]


def _with(variable: str, wanted: Sequence[str]) -> Mender:
    """Adds words at the end of a shell variable's list, inside its quotes or brackets."""
    opening = re.compile(rf"^[ \t]*{variable}=[(\"']", re.MULTILINE)

    def mend(_: Case, text: str, __: str) -> Mended:
        start = opening.search(text)
        end = CLOSING.search(text, start.end()) if start else None
        if start is None or end is None:
            return Mended(text)
        listed = text[start.end() : end.start()]
        words = listed.split()
        added = [word for word in wanted if word not in words]
        if not added:
            return Mended(text)
        extended = " ".join([listed, *added] if words else added)
        return Mended(text[: start.end()] + extended + text[end.start() :], SUMMARY)

    return mend


FIX = Fix("initramfs-config", required=False, wanted=when_regenerating, apply=apply)
