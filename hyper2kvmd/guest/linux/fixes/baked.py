"""Copies of the guest's settings inside its initramfs, which would make it wait for disks that are gone.

Each copy is repaired by the repair of its original file. Sources: hooks of initramfs-tools, cryptsetup, lvm2 and
mdadm in Debian; dracut's modules 90lvm, 90mdraid and 90crypt, and the etc/cmdline.d of a host-only dracut.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes import crypttab, lvm_filter, mdadm, resume
from hyper2kvmd.guest.linux.fixes.fix import Mender, command_lines

FOLDERS: tuple[tuple[str, Mender], ...] = (("conf/conf.d/", resume.mend), ("etc/cmdline.d/", command_lines))
FILES: dict[str, Mender] = {
    "etc/lvm/lvm.conf": lvm_filter.mend,
    "etc/lvm/lvmlocal.conf": lvm_filter.mend,
    "etc/mdadm.conf": mdadm.mend,
    "etc/mdadm/mdadm.conf": mdadm.mend,
    "etc/crypttab": crypttab.mend,
    "cryptroot/crypttab": crypttab.mend,
}


def mender(name: str) -> Mender | None:
    """The repair for a file of an initramfs, by its name there; None if the file is not a setting."""
    return FILES.get(name) or next((mend for folder, mend in FOLDERS if name.startswith(folder)), None)
