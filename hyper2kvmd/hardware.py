"""Decides the hardware of the new machine once, for the boot proof and for every target.

Each value is set by the migration, else by the source machine, else by a default. The guest decides the models of its
devices and its MAC addresses. `booting` decides the boot disk, and the firmware before the repair, which puts the boot
loader where that firmware looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.guest import WITHOUT_DRIVERS, Capabilities, Extra, Guest, Nic, Rtc
from hyper2kvmd.model.machine import Hardware, HardwareNic, Machine, Plan

DEFAULT_MACHINE = "q35"
DEFAULT_MEMORY = 2048
"""MiB."""
DEFAULT_VCPUS = 2
MOST_CDROMS = 4
LONGEST_SERIAL = 255
"""Characters."""
CONNECTS_ALL = ("qemu", "kubevirt")
"""Targets whose machines start with all network cards connected."""
WITHOUT_CDROMS = WITHOUT_GENID = ("kubevirt", "openstack")
"""Targets whose files describe no CD-ROM drives, and cannot set the VM generation ID."""
UTC_ONLY = ("kubevirt",)
"""Targets that have no clock in local time."""
CONTENTS_OF_WINDOWS = {"ntfs", "BitLocker", "vfat", "", None}
"""Of the volumes of a machine that has no other system."""
WINDOWS_WITHOUT_USB_3 = ("windows7", "win2", "winnet", "winlonghorn", "longhorn", "winvista", "winxp")
"""How the identifiers of systems before Windows 8 begin."""
OTHER_NETWORKS = "default"
"""The key of `network_map` for networks that it does not name."""


def decide_machine_type(migration: Migration) -> str:
    """QEMU's machine type."""
    return migration.machine or DEFAULT_MACHINE


def network_for(migration: Migration, network: str | None) -> str | None:
    """The target's network for one of the source; None if `network_map` has none for it."""
    chosen = migration.network_map
    return chosen.get(network or OTHER_NETWORKS) or chosen.get(OTHER_NETWORKS)


def expected_hardware(migration: Migration, plan: Plan) -> Hardware:
    """The new machine as far as it is known before the repair: with those of its cards whose address is known."""
    nics = (
        Nic(name=None, mac=nic.mac, network=nic.network, connected=nic.connected)
        for nic in plan.machine.nics
        if nic.mac is not None
    )
    capabilities = WITHOUT_DRIVERS if migration.guest == "none" else Capabilities()
    return decide_hardware(migration, plan, Guest(nics=tuple(nics), capabilities=capabilities))


def decide_hardware(migration: Migration, plan: Plan, guest: Guest) -> Hardware:
    """The new machine, with devices that the guest has drivers for."""
    source, vcpus = plan.machine, migration.vcpus or plan.machine.vcpus or DEFAULT_VCPUS
    is_windows = guest.family == "windows" or (guest.family == "none" and _is_windows(source))
    startable = guest.capabilities.secure_boot or bool(migration.secure_boot)
    return Hardware(
        firmware=plan.firmware,
        secure_boot=wants_secure_boot(migration, plan) and startable,
        tpm=bool(source.tpm if migration.tpm is None else migration.tpm),
        machine=decide_machine_type(migration),
        memory=migration.memory or source.memory or DEFAULT_MEMORY,
        vcpus=vcpus,
        cores_per_socket=_cores_per_socket(vcpus, source, is_windows=is_windows),
        nics=tuple(
            HardwareNic(mac=nic.mac, network=network_for(migration, nic.network), connected=nic.connected)
            for nic in guest.nics
        ),
        boot_disk=guest.boot_disk,
        disk_bus=guest.capabilities.disk_bus,
        nic_model=guest.capabilities.nic_model,
        cdroms=min(source.cdroms or 0, MOST_CDROMS),
        rtc=_rtc(source, guest, is_windows=is_windows),
        extras=_extras(source, guest, is_windows=is_windows),
        hyperv=is_windows,
        uuid=source.uuid,
        serial=_serial(source.serial),
        genid=source.genid,
    )


def wants_secure_boot(migration: Migration, plan: Plan) -> bool:
    """Whether the new machine has Secure Boot if the guest starts with it."""
    asked = plan.machine.secure_boot if migration.secure_boot is None else migration.secure_boot
    return bool(asked) and plan.firmware == "uefi"


def _serial(text: str | None) -> str | None:
    """None for a serial number that XML or a command line cannot hold."""
    return text if text and text.isprintable() and len(text) <= LONGEST_SERIAL else None


def _rtc(source: Machine, guest: Guest, *, is_windows: bool) -> Rtc:
    """A Windows that was not inspected keeps local time, as Windows does unless it is told otherwise."""
    if guest.family == "windows":
        return guest.capabilities.rtc
    return source.rtc or ("localtime" if is_windows else guest.capabilities.rtc)


def _extras(source: Machine, guest: Guest, *, is_windows: bool) -> tuple[Extra, ...]:
    """A Windows that was not repaired has no driver of virtio."""
    if guest.family == "windows" or not is_windows:
        return guest.capabilities.extras
    return () if (source.os_type or "").lower().startswith(WINDOWS_WITHOUT_USB_3) else ("usb",)


def _cores_per_socket(vcpus: int, source: Machine, *, is_windows: bool) -> int | None:
    """As on the source, if its cores fill whole sockets. Else one socket for Windows, which limits their number."""
    cores = source.cores_per_socket
    if cores and vcpus % cores == 0:
        return cores
    return vcpus if is_windows else None


def require_possible(migration: Migration, plan: Plan) -> None:
    """Raises MigrationFailed (`secure-boot-impossible`)."""
    if migration.secure_boot and plan.firmware != "uefi":
        raise _secure_boot_impossible("the new machine has BIOS, and Secure Boot needs UEFI", "set uefi: true")
    hardware = expected_hardware(migration, plan)
    if hardware.secure_boot and "q35" not in hardware.machine:
        fact = f"the new machine has the machine type {hardware.machine}, and Secure Boot needs q35"
        raise _secure_boot_impossible(fact, "set machine: q35")


def _secure_boot_impossible(fact: str, remedy: str) -> MigrationFailed:
    hint = f"Set secure_boot: false, or {remedy}"
    return MigrationFailed("secure-boot-impossible", fact, hint=hint, kind=Kind.PERMANENT)


def hardware_concerns(migration: Migration, plan: Plan) -> Iterator[Concern]:
    """What the new machine does not have of the source's, on every target."""
    if plan.machine.tpm:
        yield Concern(
            code="tpm-state-lost",
            message="the source machine has a TPM, and the keys in it are not migrated",
            hint="Have the recovery keys of BitLocker or LUKS ready for the first boot, then seal them to the new TPM",
        )
    if expected_hardware(migration, plan).secure_boot and not _holds_windows(plan):
        yield Concern(
            code="secure-boot-keys-lost",
            message="Secure Boot starts with Microsoft's keys: keys enrolled on the source (MOK) are not migrated",
            hint="Enroll them again with mokutil, if the guest has modules or kernels of its own",
            level="information",
        )
    yield from _shared_addresses(plan.machine)
    yield from _connected(migration, plan.machine)
    yield from _network_concerns(migration, plan.machine)
    yield from _not_kept(migration, plan.machine)


def _is_windows(source: Machine) -> bool:
    """By the identifier of its guest system, of VMware or in an OVF."""
    return (source.os_type or "").lower().startswith(("win", "longhorn"))


def _holds_windows(plan: Plan) -> bool:
    contents = {volume.content for volume in plan.layout.volumes}
    return _is_windows(plan.machine) or bool(contents & {"ntfs", "BitLocker"} and contents <= CONTENTS_OF_WINDOWS)


def _connected(migration: Migration, source: Machine) -> Iterator[Concern]:
    apart = [str(number) for number, nic in enumerate(source.nics, start=1) if not nic.connected]
    if apart and migration.target in CONNECTS_ALL:
        cards = f"network card {apart[0]} is" if len(apart) == 1 else f"network cards {', '.join(apart)} are"
        yield Concern(
            code="card-connected",
            message=f"{cards} not connected when the source machine starts, and connected when the new one starts",
            hint="Remove such a card from the definition before the first start, if its network must not see the guest",
        )


def _not_kept(migration: Migration, source: Machine) -> Iterator[Concern]:
    """What the target has no setting for."""
    if source.genid and migration.target in WITHOUT_GENID:
        yield Concern(
            code="identity-not-kept",
            message=f"the machine's VM generation ID is not kept: target {migration.target} cannot set it",
            hint="Check that a domain controller replicates after the first start",
            level="information",
        )
    if source.cdroms and migration.target in WITHOUT_CDROMS:
        yield Concern(
            code="device-not-migrated",
            message=f"the new machine has no CD-ROM drive: the files for target {migration.target} describe none",
            hint="Add a drive on the platform, if the guest needs one",
            level="information",
        )
    if source.rtc == "localtime" and migration.target in UTC_ONLY:
        yield Concern(
            code="clock-not-kept",
            message=f"the machine's clock is in local time, and with target {migration.target} in UTC",
            hint="Set the guest to a clock in UTC (`timedatectl set-local-rtc 0`), or let it use NTP",
            level="information",
        )


def _shared_addresses(source: Machine) -> Iterator[Concern]:
    macs = Counter(nic.mac for nic in source.nics if nic.mac is not None)
    for mac, count in macs.items():
        if count > 1:
            yield Concern(
                code="mac-duplicate",
                message=f"{count} network cards of the source machine have the MAC address {mac}, and keep it",
                hint="Change one of them before both are connected to one network",
            )


def _network_unknown(unknown: list[str], known: list[str], source: Machine) -> Concern:
    fact = f"no card of the source is on {', '.join(unknown)}, which network_map has"
    if source.nics:
        has = ", ".join(known) or "no named network"
        hint = "Spell the names in network_map as the source does"
        return Concern(code="network-unknown", message=f"{fact}; the source has {has}", hint=hint)
    return Concern(
        code="network-unknown",
        message=f"{fact}: the cards of the source are not described",
        hint="Add default to network_map, or name the machine's description with vmx:, ovf: or ova: instead of vmdk",
    )


def _network_concerns(migration: Migration, source: Machine) -> Iterator[Concern]:
    names = dict.fromkeys(nic.network for nic in source.nics)
    known = [name for name in names if name is not None]
    if not migration.network_map and len(known) > 1:
        yield Concern(
            code="networks-merged",
            message=f"the networks {', '.join(known)} of the source become one: all cards get the target's default one",
            hint="Set network_map to keep them apart",
        )
    unknown = [name for name in migration.network_map if name not in (*known, OTHER_NETWORKS)]
    if unknown:
        yield _network_unknown(unknown, known, source)
    if unmapped := [
        name or "(unknown)" for name in names if migration.network_map and not network_for(migration, name)
    ]:
        yield Concern(
            code="network-unmapped",
            message=f"network_map has no entry for {', '.join(unmapped)}: the target's default network is used",
            hint="Add it to network_map, or add an entry default for all others",
        )
