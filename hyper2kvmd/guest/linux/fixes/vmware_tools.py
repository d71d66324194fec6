"""VMware's guest tools: at boot, none of them starts or is waited for.

Disables their systemd units, SysV and OpenRC links and upstart jobs, which would start daemons and load modules for
hardware that is gone. With `remove_vmware_tools`, units are also masked and VMware's modules are no longer loaded by
name. Packages stay, for the guest's own package manager to remove, and so do the settings in /etc/vmware-tools, which
nothing else reads.
Sources: systemd.unit(5), init(5) of upstart, openrc-run(8), modules-load.d(5).
"""

from __future__ import annotations

import posixpath
import re

from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    Mended,
    always,
    mend_files,
)

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
GUARD = re.compile(r"^[ \t]*ConditionVirtualization[ \t]*=[ \t]*\S", re.MULTILINE)
SERVICES = ("vmware-tools", "vmware-tools-services", "vmware-tools-thinprint", "open-vm-tools", "vmtoolsd")
SYSV = ("/etc/rc?.d/S??", "/etc/rc.d/rc?.d/S??", "/etc/init.d/rc?.d/S??", "/etc/init.d/boot.d/S??")
START_ON = re.compile(r"^[ \t]*start[ \t]+on\b", re.MULTILINE)
MODULES = ("vmw_balloon", "vmmemctl", "vmhgfs", "vmblock", "vmxnet", "vmci", "vmw_vmci", "vmw_vsock_vmci_transport")
LOADED = re.compile(rf"^(?=[ \t]*(?:{'|'.join(MODULES)})[ \t]*$)", re.MULTILINE)


def apply(case: Case) -> list[str]:
    tree = case.tree
    for unit in UNITS:
        _disable_unit(case, unit)
    for prefix in (*SYSV, "/etc/runlevels/*/"):
        for name in SERVICES:
            for link in tree.glob(prefix + name):
                tree.remove(link, fix=FIX.name, summary=f"{name} no longer starts")
    warnings = mend_files(case, FIX.name, without_start, "/etc/init/vmware-tools*.conf", "/etc/init/open-vm-tools.conf")
    if case.migration.remove_vmware_tools:
        warnings += mend_files(case, FIX.name, without_modules, "/etc/modules", "/etc/modules-load.d/*.conf")
    return warnings


def _disable_unit(case: Case, unit: str) -> None:
    """Remove the links that start the unit, as the guest's own tools do: an administrator can restore them.

    A unit with a ConditionVirtualization= does not start on KVM and is left. With `remove_vmware_tools`, every unit is
    masked, so that no dependency and no package update starts it again, except one in the guest's own /etc.
    """
    tree = case.tree
    local = f"{LOCAL}/{unit}"
    places = [f"{folder}/{unit}" for folder in (LOCAL, *SHIPPED) if tree.is_file(f"{folder}/{unit}")]
    if not places and tree.link_target(local) is None:
        return
    if not case.migration.remove_vmware_tools and places and GUARD.search(tree.read_text(places[0])):
        return
    for link in _pulling_in(case, unit):
        tree.remove(link, fix=FIX.name, summary=f"{unit} is disabled")
    if case.migration.remove_vmware_tools and (tree.link_target(local) is not None or not tree.is_file(local)):
        tree.symlink(local, "/dev/null", fix=FIX.name, summary=f"{unit} is masked")


def _pulling_in(case: Case, unit: str) -> list[str]:
    links = []
    for folder in case.tree.listdir(LOCAL):
        link = posixpath.join(LOCAL, folder, unit)
        if folder.endswith((".wants", ".requires")) and case.tree.link_target(link) is not None:
            links.append(link)
    return links


def without_start(_: Case, text: str, __: str) -> Mended:
    """Disable an upstart job: `start on`, with all lines up to its closing bracket, becomes a comment."""
    match = START_ON.search(text)
    if match is None:
        return Mended(text)
    head, lines = text[: match.start()], text[match.start() :].split("\n")
    depth = 0
    for number, line in enumerate(lines):
        lines[number] = "#" + line
        depth += line.count("(") - line.count(")")
        if depth <= 0 and not line.endswith("\\"):
            break
    return Mended(head + "\n".join(lines), "the job is disabled")


def without_modules(_: Case, text: str, __: str) -> Mended:
    mended = LOADED.sub("#", text)
    return Mended(mended, "VMware's modules are no longer loaded" if mended != text else "")


FIX = Fix("vmware-tools", required=False, wanted=always, apply=apply)
