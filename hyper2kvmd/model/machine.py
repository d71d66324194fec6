"""The source machine, the plan for it, and the hardware of the new machine."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, field_serializer

from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import COMPACT, Checksum, DiskRef, Layout, SourceDisk, SourceFormat
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import EXTRAS, DiskBus, Extra, Guest, NicModel, Rtc

Firmware = Literal["bios", "uefi"]
Video = Literal["vga"]
MAX_MEMORY = 16 << 20
"""MiB."""
MAX_VCPUS = 1024
UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class DiskAddress(Frozen):
    """A disk's place on the source machine, from its .vmx: `scsi0:1`."""

    bus: Literal["scsi", "sata", "nvme", "ide"]
    controller: int
    unit: int
    slot: int | None = None
    """VMware's PCI slot number of the controller."""


class DiskIdentity(Frozen):
    """The names that the source machine gave a disk. None: unknown."""

    address: DiskAddress | None = None
    serial: str | None = None
    """32 hex digits, which udev shows as `scsi-3...` and `wwn-0x...`."""


class MachineDisk(Frozen):
    """One disk of the source machine."""

    at: DiskRef
    address: DiskAddress | None = None
    """None if unknown."""
    capacity: int | None = None
    """Bytes, by the description. The disk's own header is believed more."""
    format: SourceFormat | None = None
    """By the description, which counts more than the content: the guest of a raw disk writes that. None: unknown."""
    checksums: tuple[Checksum, ...] = ()
    """Of the files from which it is read: the conversion verifies them."""

    @field_serializer("checksums", mode="wrap")
    def _not_on_record(
        self, checksums: tuple[Checksum, ...], handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> Any:
        """Left out of the record, where thousands would not fit: a plan without its images is made again."""
        return [] if info.context == COMPACT else handler(checksums)


class SourceNic(Frozen):
    """A network card of the source, from its .vmx."""

    mac: str | None
    """Six octets in lower case, with colons; None for a machine that never ran."""
    slot: int | None = None
    """VMware's PCI slot number: 192 for the card that a guest with predictable names calls ens192."""
    network: str | None = None
    """The source's name of the network that it is connected to."""
    connected: bool = True
    """Whether it is connected when the machine starts."""


class Machine(Frozen):
    """The source machine, from its description. None: not in the description."""

    disks: tuple[MachineDisk, ...]
    """The boot disk first."""
    name: str | None = None
    """As the source's platform shows it: any printable text."""
    memory: int | None = None
    """MiB."""
    vcpus: int | None = None
    """All threads of all cores of all sockets."""
    cores_per_socket: int | None = None
    firmware: Firmware | None = None
    secure_boot: bool | None = None
    tpm: bool | None = None
    """Whether it has a TPM 2.0."""
    uuid: str | None = None
    """The SMBIOS UUID as the guest sees it, in lower case with hyphens."""
    serial: str | None = None
    """The serial number in the SMBIOS system information, as the guest sees it."""
    genid: str | None = None
    """The VM generation ID, as a UUID in lower case with hyphens."""
    rtc: Rtc | None = None
    """What its hardware clock shows."""
    cdroms: int | None = None
    """Optical drives."""
    os_type: str | None = None
    """The source's identifier of the guest operating system, such as `rhel9_64Guest`."""
    nics: tuple[SourceNic, ...] = ()
    """Empty if unknown."""
    disk_names: tuple[str, ...] = ()
    """File names of its disks in its .vmx, without directories; empty if unknown."""
    concerns: tuple[Concern, ...] = ()
    """Missing or unclear parts of the description, and devices that the new machine does not have."""


class Plan(Frozen):
    """The contents of the disks, and the needs of the migration."""

    machine: Machine
    disks: tuple[SourceDisk, ...]
    layout: Layout
    firmware: Firmware
    needed_bytes: int
    """To be free on the conversion directory's file system before the first write of an image."""
    unpacked_bytes: int = 0
    """What the files there occupy that were unpacked for the plan, in addition."""
    publish_bytes: int = 0
    """To be free on the output directory's, if that is another one."""
    concerns: tuple[Concern, ...] = ()
    """About the source machine, access to its disks, and the target."""
    guest: Guest | None = None
    """The guest on the source and its expected repairs, from a dry run; None if it was not inspected."""

    @property
    def identities(self) -> tuple[DiskIdentity, ...]:
        """Of each disk."""
        pairs = zip(self.machine.disks, self.disks, strict=True)
        return tuple(DiskIdentity(address=one.address, serial=disk.serial) for one, disk in pairs)


class HardwareNic(Frozen):
    """A network card of the new machine."""

    mac: str
    network: str | None = None
    """The target's own name of its network, from `network_map`; None for the target's default network."""
    connected: bool = True
    """Whether it is connected when the machine starts, on targets that can have it otherwise."""


class Hardware(Frozen):
    """The hardware of the new machine, the same for the boot proof and every target."""

    firmware: Firmware
    secure_boot: bool = False
    """With Microsoft's keys enrolled, and with SMM; only with UEFI."""
    tpm: bool = False
    """An emulated TPM 2.0, which is empty at first."""
    machine: str
    """QEMU's machine type."""
    memory: int
    """MiB."""
    vcpus: int
    """All threads of all cores of all sockets."""
    cores_per_socket: int | None = None
    """A divisor of `vcpus`, with one thread each; None leaves the topology to the target."""
    nics: tuple[HardwareNic, ...]
    """In the order of their addresses on the bus."""
    boot_disk: int = 0
    """Counted from 0."""
    disk_bus: DiskBus = "virtio"
    nic_model: NicModel = "virtio"
    cdroms: int = 0
    """Optical drives without a disc, on SATA."""
    rtc: Rtc = "utc"
    video: Video = "vga"
    """Every guest has a driver for it."""
    extras: tuple[Extra, ...] = EXTRAS
    """They make a guest easier to use; a guest without drivers for them boots as well, but shows unknown devices."""
    hyperv: bool = False
    """Hyper-V's interfaces for guests, which Windows uses."""
    uuid: str | None = Field(default=None, pattern=UUID)
    """The SMBIOS UUID; None: the target assigns one. So for the next two."""
    serial: str | None = None
    """The serial number in the SMBIOS system information: printable text."""
    genid: str | None = Field(default=None, pattern=UUID)
    """The VM generation ID, as a UUID."""

    @property
    def macs(self) -> tuple[str, ...]:
        return tuple(nic.mac for nic in self.nics)

    @property
    def sockets(self) -> int | None:
        return self.vcpus // self.cores_per_socket if self.cores_per_socket else None
