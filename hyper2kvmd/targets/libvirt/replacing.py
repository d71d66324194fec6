"""Domains that `overwrite` replaces: shut off, defined by an earlier job of the same submitter, and unchanged since.

Our element in the domain's `<metadata>` names the job and the submitter, and has a digest of the definition as libvirt
showed it first. A domain that has been edited or renamed since is no longer one of ours.
"""

from __future__ import annotations

import hashlib
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.files import write_durably
from hyper2kvmd.host.workspace import REPLACED_DOMAIN
from hyper2kvmd.model.orders import Order
from hyper2kvmd.targets.libvirt.connection import Libvirt, reason_of
from hyper2kvmd.targets.libvirt.domain import METADATA

SHUT_OFF = "shut off"
REPLACES = "overwrite: true replaces an unchanged domain of the same submitter's earlier job, while it is shut off"


@dataclass(frozen=True)
class Replaceable:
    """A domain that may be replaced."""

    uuid: str
    xml: str


def seal(libvirt: Libvirt, uuid: str, mark: str, order: Order) -> None:
    """Add the digest of its definition to a domain that was just defined. Without it, the domain is never replaced."""
    shown = _definition(libvirt, uuid)
    if shown is not None:
        made = {"id": mark, "owner": _owner(order), "definition": _digest(ET.fromstring(shown))}  # noqa: S314
        text = ET.tostring(ET.Element("migration", made), encoding="unicode")  # libvirt adds the namespace
        libvirt.virsh("metadata", uuid, METADATA, "--config", "--key", "hyper2kvm", "--set", text)


def find_replaceable(libvirt: Libvirt, order: Order, mark: str | None = None) -> Replaceable | None:
    """The domain of the machine's name, if there is one; None also for one of the same job, by its `mark`.

    Raises MigrationFailed (`domain-exists`) for one that may not be replaced.
    """
    name = order.migration.vm_name
    uuid = libvirt.virsh("domuuid", name).stdout.strip()
    xml = _definition(libvirt, uuid) if uuid else None
    if xml is None:
        return None
    domain = ET.fromstring(xml)  # noqa: S314
    found = domain.find(f"metadata/{{{METADATA}}}migration")
    made = {} if found is None else found.attrib
    if mark is not None and made.get("id") == mark:
        return None
    state = libvirt.virsh("domstate", uuid).stdout.strip()
    if state != SHUT_OFF:
        raise not_replaced(libvirt, name, f"which is {state or 'in an unknown state'}")
    if (made.get("owner"), made.get("definition")) != (_owner(order), _digest(domain)):
        raise not_replaced(libvirt, name, "which is not an unchanged one of an earlier job of this submitter")
    return Replaceable(uuid, xml)


def undefine(libvirt: Libvirt, order: Order, old: Replaceable, folder: Path) -> None:
    """Remove its definition and its firmware variables; the definition is kept in `folder`.

    The domain is examined again: virsh undefines one that runs by now, too. Raises MigrationFailed (`domain-exists`)
    as `find_replaceable` does, and if libvirt refuses, for example because of a snapshot.
    """
    name = order.migration.vm_name
    if find_replaceable(libvirt, order) != old:
        raise not_replaced(libvirt, name, "which was defined anew meanwhile")
    write_durably(folder / REPLACED_DOMAIN, old.xml)
    done = libvirt.virsh("undefine", old.uuid, "--nvram")
    if done.returncode != 0:
        (folder / REPLACED_DOMAIN).unlink()
        raise not_replaced(libvirt, name, f"which it cannot undefine: {reason_of(done)}")


def define_again(libvirt: Libvirt, folder: Path) -> None:
    """Bring back the definition that `undefine` has removed."""
    if (folder / REPLACED_DOMAIN).exists():
        libvirt.virsh("define", str(folder / REPLACED_DOMAIN))


def not_replaced(libvirt: Libvirt, name: str, reason: str) -> MigrationFailed:
    return MigrationFailed(
        "domain-exists",
        f"libvirt at {libvirt.uri} already has a domain {name}, {reason}",
        hint=f"Choose another vm_name, or undefine that domain first: {REPLACES}",
    )


def _owner(order: Order) -> str:
    """The uid of the submitter, or of the person whose run this is."""
    return str(os.geteuid() if order.submitter is None else order.submitter_uid)


def _definition(libvirt: Libvirt, uuid: str) -> str | None:
    shown = libvirt.virsh("dumpxml", "--inactive", uuid)
    return shown.stdout if shown.returncode == 0 else None


def _digest(domain: ET.Element) -> str:
    """Of the definition without its metadata. libvirt changes the order of the controllers when it defines it again."""
    parts = [one for one in domain if one.tag not in ("metadata", "devices")]
    texts = sorted(
        ET.canonicalize(ET.tostring(one), strip_text=True) for one in (*parts, *domain.iterfind("devices/*"))
    )
    return hashlib.sha256("".join(texts).encode()).hexdigest()
