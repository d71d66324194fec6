"""LVM's memory of disks: its devices file, its filters and its old cache.

Looks for entries that identify a disk by what the hypervisor made up, a serial number or WWID: LVM uses nothing
else than the disks in that file, and finds no volume on the new ones. Removes the file, without which LVM uses
every disk (`vgimportdevices --all` makes a new one), and the cache of LVM before 2.03. A filter that accepts old
names and rejects the rest accepts virtio's as well. Sources: lvmdevices(8), lvm.conf(5).
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.fixes.fix import Case, Fix, always, regular_files

DEVICES_FOLDER = "/etc/lvm/devices"
SETTINGS = ("/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf")
CACHES = ("/etc/lvm/cache/.cache", "/etc/lvm/.cache")
OF_THE_HARDWARE = re.compile(r"^[^#\n]*\bIDTYPE=(?!loop_file|crypt_uuid|mpath_uuid|md_uuid|lvmlv_uuid)", re.MULTILINE)
FILTER = re.compile(r"^([ \t]*(?:global_)?filter[ \t]*=[ \t]*\[)([^\n]*)\]", re.MULTILINE)
ACCEPTS_BY_NAME = re.compile(r"[\"']a\W[^\"']*/dev/")
REJECTS_THE_REST = re.compile(r"[\"']r(\W)\^?(?:/dev/)?\.?\*?\$?\1[\"']")
ACCEPTED = ' "a|^/dev/vd[a-z]+[0-9]*$|",'


def is_devices_file(path: str) -> bool:
    return path.startswith(f"{DEVICES_FOLDER}/") and path.endswith(".devices")


def is_stale(path: str, text: str) -> bool:
    """Whether `path` is a devices file by which LVM would not use the disks of the new machine."""
    return is_devices_file(path) and OF_THE_HARDWARE.search(text) is not None


def with_virtio(text: str) -> str:
    """LVM's settings with filters that do not reject virtio's disks for having other names."""

    def widen(match: re.Match[str]) -> str:
        chosen = ACCEPTS_BY_NAME.search(match[2]) and REJECTS_THE_REST.search(match[2])
        return f"{match[1]}{ACCEPTED}{match[2]}]" if chosen and "/dev/vd" not in match[2] else match[0]

    return FILTER.sub(widen, text)


def apply(case: Case) -> list[str]:
    for path in regular_files(case, f"{DEVICES_FOLDER}/*.devices"):
        if is_stale(path, case.tree.read_text(path)):
            case.tree.remove(path, fix=FIX.name, summary="removed: it names disks of the old machine, and LVM no other")
    for path in regular_files(case, *SETTINGS):
        text = with_virtio(case.tree.read_text(path))
        case.tree.write_text(path, text, fix=FIX.name, summary="its filters accept virtio's disks")
    for path in regular_files(case, *CACHES):
        case.tree.remove(path, fix=FIX.name, summary="removed: it lists disks of the old machine")
    return []


FIX = Fix("lvm", required=True, wanted=always, apply=apply)
