"""Configuration of the guest's initramfs builder: virtio in every initramfs to come.

Looks for initramfs-tools, dracut and mkinitcpio, and names the virtio modules in their configuration. A kernel
update that builds for the hardware it finds would keep them anyway; one made in a chroot or rescue system would not.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.fixes.fix import Case, Fix, when_regenerating

MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net")
NOTE = "# Added by hyper2kvm: this guest runs on KVM."
INITRAMFS_TOOLS = "/etc/initramfs-tools/modules"
DRACUT = "/etc/dracut.conf.d/90-hyper2kvm.conf"
MKINITCPIO = "/etc/mkinitcpio.conf"
MKINITCPIO_LIST = re.compile(r"^([ \t]*MODULES=)([(\"'])(.*?)([)\"'])", re.MULTILINE | re.DOTALL)
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
    if tree.is_dir("/etc/dracut.conf.d"):
        text = f'{NOTE}\nadd_drivers+=" {" ".join(MODULES)} "\n'
        tree.write_text(DRACUT, text, fix=FIX.name, summary=SUMMARY)
    if tree.is_file(MKINITCPIO):
        text = MKINITCPIO_LIST.sub(_with_virtio, tree.read_text(MKINITCPIO), 1)
        tree.write_text(MKINITCPIO, text, fix=FIX.name, summary=SUMMARY)
    return []


def _with_virtio(match: re.Match[str]) -> str:
    words = match[3].split()
    added = [name for name in MODULES if name not in words]
    return (
        match[1] + match[2] + " ".join([match[3], *added] if match[3].strip() else added) + match[4]
        if added
        else match[0]
    )


FIX = Fix("initramfs-config", required=False, wanted=when_regenerating, apply=apply)
