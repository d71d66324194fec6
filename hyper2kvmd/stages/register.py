"""register: the domain XML lies beside the image and, when asked for, libvirt has the domain.

An existing domain is never overwritten: ours carries a UUID made from the job and the image, and libvirt refuses a
second UUID for a name. What was defined is read back before it counts.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.destination import require_unshared
from hyper2kvmd.host.placing import Placing
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, Domain
from hyper2kvmd.progress import Context
from hyper2kvmd.targets.libvirt.connection import Libvirt
from hyper2kvmd.targets.libvirt.definition import choose_hypervisor, define
from hyper2kvmd.targets.libvirt.domain import domain_xml

NOTE = "registering.json"


def register(order: Order, hardware: Hardware, guest: Guest, artifact: Artifact, folder: Path, ctx: Context) -> Domain:
    """Write `<output_dir>/<vm_name>.xml`; with `libvirt_import`, define it and see that libvirt has it.

    `folder` is the job's own: libvirt gets the XML from there, since that of the output directory is its owner's to
    change. Raises MigrationFailed: `libvirt-unreachable`, `domain-exists`, `libvirt-define-failed` (libvirt's own
    reason in the message), `output-exists`, `xml-unwritable`, and Unsafe (`libvirt-uri-not-allowed`, `output-shared`,
    and as `output_of` does). Images and XML stay in any case.
    """
    migration, libvirt = order.migration, Libvirt.of(order)
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"hyper2kvmd:{order.job_id}:{artifact.disks[0].path}"))
    hypervisor = choose_hypervisor(libvirt, migration, ctx)
    xml = order.output_dir / f"{migration.vm_name}.xml"
    with ctx.step(f"Writing {xml.name}"):
        text = domain_xml(migration, hardware, guest, artifact, identity, hypervisor)
        own = folder / "domain.xml"
        own.write_text(text, encoding="utf-8")
        _place(order, xml, text, folder / NOTE)
    if migration.libvirt_import:
        require_unshared(order)
        with ctx.step(f"Defining {migration.vm_name} in libvirt"):
            define(libvirt, migration.vm_name, identity, own, xml, artifact)
    return Domain(
        name=migration.vm_name,
        xml=xml,
        macs=hardware.macs,
        defined=migration.libvirt_import,
        uri=migration.libvirt_uri if migration.libvirt_import else None,
    )


def _place(order: Order, xml: Path, text: str, note: Path) -> None:
    try:
        with Placing(order, note) as placing:
            if not placing.holds(xml.name, text):
                placing.write(xml.name, text)
    except OSError as error:
        raise MigrationFailed(
            "xml-unwritable",
            f"the domain XML {xml} cannot be written: {error.strerror}",
            hint="correct the directory's owner, mode or free space, then retry",
            kind=Kind.OPERATOR,
        ) from error
