"""SanPolicy: whether Windows uses disks that it has not seen before, as all disks on another bus are.

The policy of partmgr becomes 1 ("online all"). In a guest of a failover cluster it stays: there, a disk that comes
online on two nodes is destroyed. Source: Microsoft, "VDS_SAN_POLICY enumeration".
"""

from __future__ import annotations

from hyper2kvmd.guest.windows.fixes.fix import WindowsCase, WindowsFix
from hyper2kvmd.guest.windows.inspect import SYSTEM
from hyper2kvmd.guest.windows.registry import Value
from hyper2kvmd.model.concerns import Concern

ONLINE_ALL = 1
NAMES = {1: "online all", 2: "offline shared", 3: "offline all", 4: "offline internal"}
CLUSTER = "ClusSvc"
PLACE = r"Services\partmgr\Parameters"


def apply(case: WindowsCase) -> list[Concern]:
    old = case.number(PLACE, "SanPolicy")
    said = "not set" if old is None else f"{old} ({NAMES.get(old, 'unknown')})"
    if case.service(CLUSTER) is not None:
        return [_about_cluster(said, are_online=old == ONLINE_ALL)]
    if old != ONLINE_ALL:
        path = rf"{case.system.control_set}\{PLACE}"
        case.hives.edit(SYSTEM).set(path, Value.dword("SanPolicy", ONLINE_ALL))
    return []


SHARED = "Attach the shared disks to all nodes, and validate the cluster before it starts"


def _about_cluster(said: str, *, are_online: bool) -> Concern:
    state = "so that shared disks come online here too" if are_online else "so that data disks stay offline"
    return Concern(
        code="windows-cluster",
        message=f"the guest is a node of a failover cluster: its SAN policy stays {said}, {state}",
        hint=SHARED
        if are_online
        else f"Bring the disks of this node alone online: `Set-Disk -IsOffline $false`. {SHARED}",
    )


FIX = WindowsFix("san-policy", "data disks come online on the new bus", apply=apply)
