"""Looks for what the new domain would share with libvirt's domains, or miss there, before the conversion."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from hyper2kvmd.hardware import network_for
from hyper2kvmd.mac import normal_mac
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import Hardware, Machine
from hyper2kvmd.targets.libvirt.connection import Libvirt
from hyper2kvmd.targets.libvirt.devices import BRIDGE

MAX_DOMAINS = 1000
"""Domains whose addresses are compared."""
AT_ONCE = 50
"""Domains for one start of virsh."""


def domain_concerns(libvirt: Libvirt, migration: Migration, source: Machine, hardware: Hardware) -> Iterator[Concern]:
    yield from _missing_networks(libvirt, migration, source)
    yield from _macs_in_use(libvirt, migration.vm_name, hardware)
    if hardware.uuid is not None and (owner := domain_with(libvirt, hardware.uuid)) != migration.vm_name and owner:
        yield uuid_in_use(libvirt, hardware.uuid, owner)


def tpm_not_available(libvirt: Libvirt, vm_name: str) -> Concern:
    return Concern(
        code="tpm-not-available",
        message=f"libvirt at {libvirt.uri} cannot emulate a TPM: {vm_name} is defined without one",
        hint="Install swtpm and swtpm-tools there before the migration, or add the TPM with `virsh edit` afterwards",
    )


def uuid_in_use(libvirt: Libvirt, uuid: str, owner: str) -> Concern:
    return Concern(
        code="uuid-in-use",
        message=f"libvirt at {libvirt.uri} already has the source's UUID {uuid}, for {owner}: a new one is used",
        hint=f"Undefine {owner} before the migration if licences in the guest depend on the UUID",
    )


def domain_with(libvirt: Libvirt, uuid: str) -> str:
    """The name of the domain; empty if there is none."""
    named = libvirt.virsh("domname", uuid)
    return named.stdout.strip() if named.returncode == 0 else ""


def _missing_networks(libvirt: Libvirt, migration: Migration, source: Machine) -> Iterator[Concern]:
    """A domain without its network can be defined, and does not start."""
    listed = libvirt.virsh("net-list", "--all", "--name")
    if listed.returncode != 0:
        return
    known = listed.stdout.splitlines()
    networks = [nic.network for nic in source.nics] or [None]
    for network in dict.fromkeys(network_for(migration, one) or migration.libvirt_network for one in networks):
        if network not in known and not network.startswith(BRIDGE):
            yield Concern(
                code="network-missing",
                message=f"libvirt at {libvirt.uri} has no network {network}",
                hint=f"Create it before you start {migration.vm_name}",
            )


def _macs_in_use(libvirt: Libvirt, vm_name: str, hardware: Hardware) -> Iterator[Concern]:
    """In other domains: one of the same name is going to be replaced."""
    wanted = set(hardware.macs)
    if not wanted:
        return
    for name, macs in _cards(libvirt):
        for mac in sorted(wanted & macs) if name != vm_name else ():
            yield Concern(
                code="mac-in-use",
                message=f"the domain {name} of libvirt at {libvirt.uri} already has the MAC address {mac}",
                hint=f"Never run both on one network: undefine {name}, or change its address",
            )


def _cards(libvirt: Libvirt) -> Iterator[tuple[str, frozenset[str]]]:
    """Name and MAC addresses of each domain; one that is undefined meanwhile is left out."""
    uuids = libvirt.virsh("list", "--all", "--uuid").stdout.split()[:MAX_DOMAINS]
    for start in range(0, len(uuids), AT_ONCE):
        # virsh runs all commands of one argument, and goes on after one that fails
        commands = "; ".join(f"dumpxml --inactive {uuid}" for uuid in uuids[start : start + AT_ONCE])
        shown = libvirt.virsh(commands).stdout
        for text in shown.split("</domain>")[:-1]:
            yield _card_of(f"{text}</domain>")


def _card_of(xml: str) -> tuple[str, frozenset[str]]:
    try:
        domain = ET.fromstring(xml)  # noqa: S314
    except ET.ParseError:
        return "", frozenset()
    found = (normal_mac(element.get("address", "")) for element in domain.iterfind("devices/interface/mac"))
    return domain.findtext("name", ""), frozenset(mac for mac in found if mac)
