"""Defines a domain in libvirt, never over an existing one, and reads it back."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.kvm import KVM_DEVICE, kvm_works
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.progress import Context
from hyper2kvmd.targets.libvirt.concerns import domain_with, uuid_in_use
from hyper2kvmd.targets.libvirt.connection import Libvirt, reason_of
from hyper2kvmd.targets.libvirt.domain import Hypervisor, Identity

Sources: TypeAlias = Sequence[Mapping[str, str]]
"""The attributes of `<source>` of each disk."""
IMAGES = "devices/disk[@device='disk']/source"


def domain_exists(libvirt: Libvirt, name: str) -> bool:
    """Whether libvirt has a domain of that name, running or not. Raises as `Libvirt.virsh` does."""
    return name in libvirt.virsh("list", "--all", "--name").stdout.splitlines()


def choose_hypervisor(libvirt: Libvirt, migration: Migration, ctx: Context) -> Hypervisor:
    """KVM, unless this guest's libvirt answers that it has none: such a domain would never start.

    Raises as `Libvirt.virsh` does: a libvirt that cannot be asked has not said anything about KVM.
    """
    if not migration.libvirt_import:
        return "kvm"
    offered = libvirt.virsh("domcapabilities", "--virttype", "kvm", "--arch", "x86_64").returncode == 0
    local = ":///" in libvirt.uri
    if offered and not (local and os.access(KVM_DEVICE, os.R_OK | os.W_OK) and not kvm_works()):
        return "kvm"
    ctx.note(
        Concern(
            code="kvm-not-available",
            message=f"KVM does not work for libvirt at {libvirt.uri}: {migration.vm_name} is defined to run under slow"
            " emulation",
            hint="Load kvm_intel or kvm_amd on that host, then set the domain's type to kvm with `virsh edit`",
        )
    )
    return "qemu"


def choose_identity(libvirt: Libvirt, migration: Migration, wanted: str | None, mark: str, ctx: Context) -> Identity:
    """With the `wanted` UUID, unless another machine's domain has it; else the mark is the UUID."""
    if wanted is None:
        return Identity(mark, mark)
    identity = Identity(wanted, mark)
    owner = domain_with(libvirt, wanted) if migration.libvirt_import else ""
    if not owner or owner == migration.vm_name or _is_ours(libvirt, identity):
        return identity
    ctx.note(uuid_in_use(libvirt, wanted, owner))
    return Identity(mark, mark)


def is_defined(libvirt: Libvirt, name: str, identity: Identity, xml: Path) -> bool:
    """Whether an earlier attempt has defined the domain. Raises MigrationFailed (`domain-exists`) for another's.

    virsh tries an argument as an ID or a UUID before it tries a name, so our domain is looked up by its UUID.
    """
    if not domain_exists(libvirt, name):
        return False
    if domain_with(libvirt, identity.uuid) == name and _is_ours(libvirt, identity):
        return True
    raise MigrationFailed(
        "domain-exists",
        f"libvirt at {libvirt.uri} already has a domain {name}; the images and {xml} are kept",
        hint=f"Rename the old one (virsh domrename) or undefine it, then run `virsh define {xml}`",
    )


def define(libvirt: Libvirt, name: str, identity: Identity, own: Path, xml: Path, ours: Sources) -> None:
    """Define the domain from our `own` copy, and read it back; `xml` is the copy that messages name.

    Raises MigrationFailed (`libvirt-define-failed`).
    """
    defined = libvirt.virsh("define", "--validate", str(own))
    if defined.returncode != 0:
        raise _define_failed(libvirt.uri, name, reason_of(defined), xml)
    try:
        require_disks(libvirt, name, identity, xml, ours)
    except MigrationFailed:
        libvirt.virsh("undefine", identity.uuid)
        raise


def require_disks(libvirt: Libvirt, name: str, identity: Identity, xml: Path, ours: Sources) -> None:
    """Raise MigrationFailed (`libvirt-define-failed`) if the domain has other disks."""
    shown = libvirt.virsh("dumpxml", "--inactive", identity.uuid)
    if shown.returncode != 0:
        raise _define_failed(libvirt.uri, name, reason_of(shown), xml)
    sources = ET.fromstring(shown.stdout).iterfind(IMAGES)  # noqa: S314
    disks = [{key: source.get(key, "") for key in ours[0]} for source in sources]
    if disks != list(ours):
        raise _define_failed(libvirt.uri, name, f"its disks are {_names(disks)} there, not {_names(ours)}", xml)


def _names(sources: Sources) -> list[str]:
    return ["/".join(source.values()) for source in sources]


def _is_ours(libvirt: Libvirt, identity: Identity) -> bool:
    shown = libvirt.virsh("dumpxml", "--inactive", identity.uuid)
    return shown.returncode == 0 and identity.is_of(ET.fromstring(shown.stdout))  # noqa: S314


def _define_failed(uri: str, name: str, reason: str, xml: Path) -> MigrationFailed:
    return MigrationFailed(
        "libvirt-define-failed",
        f"libvirt at {uri} rejected the domain {name}: {reason}; the images and {xml} are kept",
        hint=f"Correct the cause, then run `virsh --connect {uri} define {xml}`",
        kind=Kind.OPERATOR,
    )
