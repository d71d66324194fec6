"""The guest on the disks and its repairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Self

from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.frozen import Frozen

FSTAB_KEPT, WARNING_KEPT = 64 << 10, 1000
"""Characters of one text."""
DIFFS_KEPT = 256 << 10
"""Characters of all diffs together."""
WARNINGS_KEPT = 200


DiskBus = Literal["virtio", "scsi", "sata"]
"""`scsi` is a virtio-scsi controller."""
NicModel = Literal["virtio", "e1000e"]
Extra = Literal["usb", "agent", "balloon", "rng"]
"""A USB 3 controller with a tablet; the channel of QEMU's guest agent; virtio's memory balloon and entropy source."""
EXTRAS: tuple[Extra, ...] = ("usb", "agent", "balloon", "rng")
Rtc = Literal["utc", "localtime"]
FamilyName = Literal["linux", "windows", "none"]
"""`none`: disks without a system that can be repaired."""


class Change(Frozen):
    """One edit of a guest file, made by one fix."""

    fix: str
    path: str
    summary: str
    diff: str = ""
    """Unified diff for text; one line of facts for binary files."""
    size: int | None = None
    """Bytes of a file that is written as a whole; None for any other edit."""
    sha256: str = ""
    """Of the same file."""


class Nic(Frozen):
    """A network card of the migrated machine."""

    name: str | None
    """The guest's name for its interface; None if nothing in the guest requires a name."""
    mac: str
    mac_is_new: bool = False
    """Derived from the VM's name, because neither the source machine's description nor its guest had one."""
    network: str | None = None
    """The source's name of its network; None if unknown."""
    connected: bool = True
    """Whether it is connected when the machine starts."""


class Capabilities(Frozen):
    """The devices for which the guest has drivers at its next boot, and how it starts and reads the clock."""

    disk_bus: DiskBus = "virtio"
    nic_model: NicModel = "virtio"
    rtc: Rtc = "utc"
    extras: tuple[Extra, ...] = EXTRAS
    secure_boot: bool = True
    """False if a repair removed a signature that Secure Boot checks."""


WITHOUT_DRIVERS = Capabilities(disk_bus="sata", nic_model="e1000e")
"""Devices for which nearly every system has drivers: for a guest that was not repaired, or is not known."""


class DriverFileFact(Frozen):
    """A file of a driver package, as it is copied into the guest."""

    name: str
    sha256: str


class WindowsDriver(Frozen):
    """A driver package for a device of the new machine."""

    name: str
    version: str
    signer: str
    """Empty if it is not signed."""
    note: str = ""
    """What is said about its signature for this release of Windows."""
    files: tuple[DriverFileFact, ...] = ()


class WindowsAdapter(Frozen):
    """A network adapter in the registry of a Windows guest, and its settings."""

    name: str
    guid: str
    mac: str | None
    """As the guest last saw it, or by the source's slot number; None if unknown."""
    device: str
    dhcp: bool
    addresses: tuple[str, ...] = ()
    """With the length of the network's prefix."""
    gateways: tuple[str, ...] = ()
    name_servers: tuple[str, ...] = ()


class WindowsFacts(Frozen):
    """What is known about a Windows guest besides the facts of every guest."""

    build: int
    edition: str
    version: str
    """As Microsoft calls the release: `21H2`; empty for those without such a name."""
    server: bool
    control_set: str
    system_root: str
    drivers: tuple[WindowsDriver, ...] = ()
    agent: DriverFileFact | None = None
    """The installer of QEMU's guest agent."""
    adapters: tuple[WindowsAdapter, ...] = ()
    first_boot: tuple[str, ...] = ()
    """What a service does once, at the first boot; empty if there is no such service."""
    by_hand: tuple[str, ...] = ()
    """What a person has to do after the first boot, because no service can or may: imperatives with commands."""


class Guest(Frozen):
    """The guest on the disk, its repairs and the warnings."""

    family: FamilyName = "linux"
    os_id: str = ""
    os_name: str = ""
    hostname: str = ""
    architecture: str = ""
    kernels: tuple[str, ...] = ()
    boot_loader: str = ""
    root: str = ""
    system_disks: tuple[int, ...] = ()
    """The disks with the files that its boot loader reads, counted from 0; empty if unknown."""
    boot_disk: int = 0
    """The disk that the machine boots from, counted from 0."""
    nics: tuple[Nic, ...] = ()
    """In the order of their addresses on the bus."""
    fstab_before: str = ""
    fstab_after: str = ""
    windows: WindowsFacts | None = None
    """Only of a Windows guest that was inspected."""
    capabilities: Capabilities = Capabilities()
    changes: tuple[Change, ...] = ()
    concerns: tuple[Concern, ...] = ()
    """About the support of such a guest."""
    warnings: tuple[str, ...] = ()

    def shortened(self) -> Self:
        """With texts, diffs and warnings cut to the limits of record and report."""
        return self.with_changes(
            fstab_before=_begin(self.fstab_before, FSTAB_KEPT),
            fstab_after=_begin(self.fstab_after, FSTAB_KEPT),
            changes=tuple(_with_diffs_up_to(self.changes, DIFFS_KEPT)),
            warnings=first_warnings(self.warnings),
        )


def _begin(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "\n... (shortened)"


def _with_diffs_up_to(changes: Iterable[Change], left: int) -> Iterator[Change]:
    """All changes, with diffs up to `left` characters."""
    for change in changes:
        if len(change.diff) <= left:
            left -= len(change.diff)
            yield change
        else:
            yield change.with_changes(diff="... (left out: the diffs of this guest are too long)")


def first_warnings(warnings: Sequence[str]) -> tuple[str, ...]:
    """Warnings cut to the limits of record and report."""
    kept = tuple(_begin(warning, WARNING_KEPT) for warning in warnings[:WARNINGS_KEPT])
    more = len(warnings) - WARNINGS_KEPT
    return (*kept, f"and {more} more warnings") if more > 0 else kept
