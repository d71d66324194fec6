"""Chooses the target of an order; the only place that does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

from hyper2kvmd.model.asked import TargetName
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Context
from hyper2kvmd.targets.kubevirt import KUBEVIRT
from hyper2kvmd.targets.libvirt.target import LibvirtTarget
from hyper2kvmd.targets.machine_files import FileTarget
from hyper2kvmd.targets.openstack import OPENSTACK
from hyper2kvmd.targets.proxmox import PROXMOX
from hyper2kvmd.targets.qemu import QEMU
from hyper2kvmd.targets.target import Target

TargetMaker: TypeAlias = Callable[[Order, Path, Context], Target]
TARGETS: Mapping[TargetName, TargetMaker] = {
    "libvirt": LibvirtTarget.of,
    "qemu": partial(FileTarget, QEMU),
    "proxmox": partial(FileTarget, PROXMOX),
    "kubevirt": partial(FileTarget, KUBEVIRT),
    "openstack": partial(FileTarget, OPENSTACK),
}


def target_of(order: Order, folder: Path, ctx: Context) -> Target:
    """The target that the migration names. `folder` is the job's own.

    Raises as the target's own constructor does.
    """
    return TARGETS[order.migration.target](order, folder, ctx)
