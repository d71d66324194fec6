"""VMware's guest tools, when `remove_vmware_tools` asks for it: nothing of them starts or is waited for at boot.

Looks for their systemd units and SysV links. Masks the units and removes the links that pull them in; the packages
stay, for the guest's own package manager to remove.
"""

from __future__ import annotations

import posixpath

from hyper2kvmd.guest.fixes.fix import Case, Fix
from hyper2kvmd.model import Migration

UNITS = (
    "open-vm-tools.service",
    "vmtoolsd.service",
    "vgauth.service",
    "vgauthd.service",
    "vmware-tools.service",
    "vmware-tools-thinprint.service",
    "run-vmblock\\x2dfuse.mount",
    "vmware-vmblock-fuse.service",
)
SHIPPED = ("/usr/lib/systemd/system", "/lib/systemd/system")
LOCAL = "/etc/systemd/system"
SYSV = ("vmware-tools", "open-vm-tools", "vmtoolsd")


def wanted(migration: Migration) -> bool:
    return migration.remove_vmware_tools


def apply(case: Case) -> list[str]:
    tree = case.tree
    warnings = []
    for unit in UNITS:
        mask = f"{LOCAL}/{unit}"
        local_link = tree.link_target(mask)
        if local_link is None and tree.is_file(mask):
            warnings.append(f"{mask} is the guest's own unit and stays; disable it in the guest")
            continue
        if local_link is not None or any(tree.is_file(f"{folder}/{unit}") for folder in SHIPPED):
            for link in _pulling_in(case, unit):
                tree.remove(link, fix=FIX.name, summary=f"{unit} is no longer pulled in")
            tree.symlink(mask, "/dev/null", fix=FIX.name, summary=f"{unit} is masked")
    for pattern in ("/etc/rc?.d/S??", "/etc/rc.d/rc?.d/S??"):
        for name in SYSV:
            for link in case.tree.glob(pattern + name):
                tree.remove(link, fix=FIX.name, summary=f"{name} no longer starts")
    return warnings


def _pulling_in(case: Case, unit: str) -> list[str]:
    links = []
    for folder in case.tree.listdir(LOCAL):
        link = posixpath.join(LOCAL, folder, unit)
        if folder.endswith((".wants", ".requires")) and case.tree.link_target(link) is not None:
            links.append(link)
    return links


FIX = Fix("vmware-tools", required=False, wanted=wanted, apply=apply)
