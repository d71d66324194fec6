"""Configuration of the guest's initramfs builder: virtio in every initramfs to come.

Looks for initramfs-tools, dracut (also host-only, which takes what `add_drivers` names whatever it finds), mkinitcpio,
Alpine's mkinitfs and mkinitrd of SLES 11, and names the virtio modules in their configuration. A kernel update that
builds for the hardware it finds would keep them anyway; one made in a chroot or rescue system would not.
Sources: initramfs-tools(7), dracut.conf(5), mkinitcpio(8), the comments of mkinitfs.conf and /etc/sysconfig/kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyper2kvmd.guest.fixes.fix import Case, Fix, Mended, Mender, mend_files, when_regenerating

MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net")
NOTE = "# Added by hyper2kvm: this guest runs on KVM."
INITRAMFS_TOOLS = "/etc/initramfs-tools/modules"
DRACUT = "/etc/dracut.conf.d/90-hyper2kvm.conf"
DRACUT_MARKS = ("/etc/dracut.conf.d", "/etc/dracut.conf", "/usr/lib/dracut", "/usr/share/dracut")
SUMMARY = "the next initramfs keeps virtio"


def apply(case: Case) -> list[str]:
    tree = case.tree
    if tree.is_dir("/etc/initramfs-tools"):
        text = tree.text_or_empty(INITRAMFS_TOOLS)
        listed = {line.split()[0] for line in text.split("\n") if line.strip() and not line.startswith("#")}
        lines = [name for name in MODULES if name not in listed]
        if lines:
            start = text if text.endswith("\n") or not text else text + "\n"
            tree.write_text(INITRAMFS_TOOLS, start + "\n".join([NOTE, *lines, ""]), fix=FIX.name, summary=SUMMARY)
    if any(tree.exists(mark) for mark in DRACUT_MARKS):
        text = f'{NOTE}\nadd_drivers+=" {" ".join(MODULES)} "\n'
        tree.write_text(DRACUT, text, fix=FIX.name, summary=SUMMARY)
    return [
        *mend_files(case, FIX.name, _with("MODULES", MODULES), "/etc/mkinitcpio.conf"),
        *mend_files(case, FIX.name, _with("INITRD_MODULES", MODULES), "/etc/sysconfig/kernel"),
        *mend_files(case, FIX.name, _with("features", ("virtio",)), "/etc/mkinitfs/mkinitfs.conf"),
    ]


def _with(variable: str, wanted: Sequence[str]) -> Mender:
    """Words at the end of a shell variable's list, in the quotes or brackets that it has."""
    assignment = re.compile(rf"^([ \t]*{variable}=)([(\"'])([^)\"']*)([)\"'])", re.MULTILINE)

    def mend(_: Case, text: str, __: str) -> Mended:
        def extend(match: re.Match[str]) -> str:
            words = match[3].split()
            added = [word for word in wanted if word not in words]
            listed = " ".join([match[3], *added] if words else added)
            return match[1] + match[2] + listed + match[4] if added else match[0]

        return Mended(assignment.sub(extend, text, count=1), SUMMARY)

    return mend


FIX = Fix("initramfs-config", required=False, wanted=when_regenerating, apply=apply)
