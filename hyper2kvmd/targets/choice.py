"""Chooses the target of an order; the only place that does."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Context
from hyper2kvmd.targets.libvirt.connection import Libvirt
from hyper2kvmd.targets.libvirt.target import LibvirtTarget
from hyper2kvmd.targets.target import Target


def target_of(order: Order, folder: Path, ctx: Context) -> Target:
    """libvirt: the only target today. `folder` is the job's own. Raises as `Libvirt.of` does."""
    return LibvirtTarget(order, folder, ctx, Libvirt.of(order))
