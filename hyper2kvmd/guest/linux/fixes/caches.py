"""Caches of device names: LVM's and blkid's records of the old machine's disks.

Removes LVM's persistent cache and blkid's; both are created again. An old LVM trusts its cache and does not scan
disks that are not in it. Sources: lvm.conf(5), `write_cache_state`; libblkid(3).
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always, regular_files

CACHES = (
    "/etc/lvm/cache/.cache",
    "/etc/lvm/.cache",
    "/etc/blkid.tab",
    "/etc/blkid.tab.old",
    "/etc/blkid/blkid.tab",
    "/etc/blkid/blkid.tab.old",
)


def apply(case: Case) -> list[str]:
    for path in regular_files(case, *CACHES):
        case.tree.remove(path, fix=FIX.name, summary="removed: a cache of device names of the old machine")
    return []


FIX = Fix("caches", required=False, wanted=always, apply=apply)
