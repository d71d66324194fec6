"""Copies of the guest's settings inside its initramfs: what its builder baked in would wait for disks that are gone.

Each is mended by the repair of the file that it is a copy of. Sources: hooks of initramfs-tools, cryptsetup, lvm2 and
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
    """The repair for a file of an initramfs, by its name in there; None for what is no setting."""
    return FILES.get(name) or next((mend for folder, mend in FOLDERS if name.startswith(folder)), None)
