"""Chooses the target of an order; the only place that does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Context
from hyper2kvmd.targets.libvirt.target import LibvirtTarget
from hyper2kvmd.targets.target import Target

TargetMaker: TypeAlias = Callable[[Order, Path, Context], Target]
TARGETS: Mapping[str, TargetMaker] = {"libvirt": LibvirtTarget.of}
DEFAULT = "libvirt"


def target_of(order: Order, folder: Path, ctx: Context) -> Target:
    """The default target: no key of a migration names another one. `folder` is the job's own.

    Raises as the target's own constructor does.
    """
    return TARGETS[DEFAULT](order, folder, ctx)
