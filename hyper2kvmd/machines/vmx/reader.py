"""Reads a whole machine from its .vmx, and the disks of one of its snapshots from the .vmsd beside it.

Both are untrusted, and so are the paths in them: every file is opened by the rights of the submitter and of the owner
of the .vmx.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.disk.sources.vmdk.links import read_descriptor
from hyper2kvmd.errors import Failure, MigrationFailed
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines.other_key import recognise
from hyper2kvmd.machines.vmx import hardware
from hyper2kvmd.machines.vmx.concerns import concerns_about
from hyper2kvmd.machines.vmx.drives import NO_FILE, Drive, boot_order, place, read_drives
from hyper2kvmd.machines.vmx.files import NamedFiles
from hyper2kvmd.machines.vmx.nics import read_nics
from hyper2kvmd.machines.vmx.places import address_of
from hyper2kvmd.machines.vmx.settings import Settings, parse_settings
from hyper2kvmd.machines.vmx.snapshots import FrozenDisk, Snapshot, choose, read_snapshots
from hyper2kvmd.model.asked import DISKS_MAX, Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import LocalFile, NamedBy
from hyper2kvmd.model.machine import DiskAddress, Machine, MachineDisk
from hyper2kvmd.yaml_source import shown

MAX_BYTES = 1 << 20
"""Of a .vmx or .vmsd. A guest's configuration for cloud-init may be in a .vmx."""
MAX_SETTINGS = 8192
RAW_MAPPED = ("vmfsrawdevicemap", "vmfspassthroughrawdevicemap", "vmfsrdm", "vmfsrdmp", "fulldevice")
"""Types of VMDKs whose content is a device of the host. Source: VMware, Virtual Disk Format 5.0."""
LONGEST_NAME = 255
NFS_LOCK = re.compile(r"\.lck-[0-9a-f]+")


@dataclass(frozen=True)
class Disk:
    """A hard disk to migrate."""

    device: str
    address: DiskAddress | None
    file: str
    """As VMware's file spells it."""


class Vmx:
    """A `MachineReader` for `vmx`."""

    def read(self, asked: Migration, sources: Sources) -> Machine:
        """Raises as `open_file` and `NamedFiles.find` do, and MigrationFailed (`vmx-invalid`, `vmx-without-disks`,
        `disks-too-many`, `machine-encrypted`, `machine-suspended`, `disk-raw-mapped`, `snapshot-unknown`).
        """
        (vmx,) = asked.sources
        file = open_file(vmx, sources.mandate)
        try:
            _refuse_other(file)
            settings = _read_settings(file)
            named_by = NamedBy(path=vmx, uid=os.fstat(file.fd).st_uid)
        finally:
            os.close(file.fd)
        named = sources.mandate.named_by_owner(named_by.path, named_by.uid)
        _refuse_unreadable(vmx, settings, is_current=asked.snapshot is None)
        drives = read_drives(settings)
        disks, about_snapshots = _disks(vmx, settings, drives, asked.snapshot, named)
        files = NamedFiles(vmx, named, asked.datastore_map)
        paths = _find(vmx, disks, files)
        return _without_disks(settings, drives).with_changes(
            disks=tuple(
                MachineDisk(at=LocalFile(path=path, named_by=named_by), address=disk.address)
                for disk, path in zip(disks, paths, strict=True)
            ),
            concerns=(
                *concerns_about(vmx, settings, drives),
                *about_snapshots,
                *files.concerns,
                *files.unused(),
                *_locks(vmx, paths, files),
            ),
        )


def _refuse_other(file: SourceFile) -> None:
    other = recognise(file, "vmx")
    if other is not None:
        raise _refused(file.path, f"it is {other.what}", hint=other.remedy("vmx"))


def _read_settings(file: SourceFile) -> Settings:
    """Raises MigrationFailed (`vmx-invalid`)."""
    path = file.path
    if file.size > MAX_BYTES:
        raise _refused(path, f"it is larger than {MAX_BYTES} bytes")
    settings = parse_settings(file.read(0, MAX_BYTES), limit=MAX_SETTINGS)
    if not settings.values:
        raise _refused(path, 'it has no line of the form `key = "value"`')
    if len(settings.values) == MAX_SETTINGS:
        raise _refused(path, f"it has {MAX_SETTINGS} settings or more")
    return settings


def _refused(
    path: Path, fact: str, *, hint: str = "Name the machine's .vmx with vmx:. For a single disk, use vmdk: instead"
) -> MigrationFailed:
    return MigrationFailed("vmx-invalid", f"{path} is not a file of settings of VMware: {fact}", hint=hint)


def _refuse_unreadable(vmx: Path, settings: Settings, *, is_current: bool) -> None:
    """Raise for an encrypted machine, and for a suspended one of which the current state is migrated."""
    name = shown(settings.text("displayname")) or vmx.stem
    if settings.text("encryption.keysafe") or settings.text("encryption.data"):
        raise MigrationFailed(
            "machine-encrypted",
            f"{vmx}: the machine {name} is encrypted",
            hint="Decrypt it in vSphere (storage policy `Datastore Default`) or in Workstation (Access Control, Remove"
            " Encryption), then export it again",
        )
    state = settings.text("checkpoint.vmstate")
    if is_current and state:
        raise MigrationFailed(
            "machine-suspended",
            f"{vmx}: the machine {name} is suspended: what it had in memory is in {shown(state)}, not on its disks",
            hint="Resume the machine, shut it down, then export it again. To migrate its disks as after a power"
            " failure, name them in vmdk",
        )


def _without_disks(settings: Settings, drives: Sequence[Drive]) -> Machine:
    whole, vcpus = hardware.is_whole(settings), hardware.vcpus_of(settings)
    cdroms = sum(drive.kind == "cdrom" for drive in drives)
    firmware = hardware.firmware_of(settings) if whole or settings.text("firmware") else None
    return Machine(
        disks=(),
        name=_printable(settings.text("displayname")),
        memory=hardware.memory_of(settings),
        vcpus=vcpus,
        cores_per_socket=hardware.cores_of(settings, vcpus),
        firmware=firmware,
        secure_boot=None if firmware is None else settings.flag("uefi.secureboot.enabled"),
        tpm=hardware.tpm_of(settings),
        uuid=hardware.uuid_of(settings),
        serial=hardware.serial_of(settings),
        genid=hardware.genid_of(settings),
        cdroms=cdroms if whole or cdroms else None,
        os_type=_printable(settings.text("guestos")),
        nics=read_nics(settings),
    )


def _printable(text: str) -> str | None:
    return text[:LONGEST_NAME] if text and text.isprintable() else None


def _disks(
    vmx: Path, settings: Settings, drives: Sequence[Drive], wanted: str | None, named: Mandate
) -> tuple[tuple[Disk, ...], tuple[Concern, ...]]:
    """The disks to migrate, boot disk first, and what the snapshots of the machine mean for them."""
    current = [drive for drive in drives if drive.kind == "disk" and drive.file.lower() not in NO_FILE]
    vmsd = vmx.with_suffix(".vmsd")
    snapshots = _snapshots(vmsd, named, needed=wanted is not None)
    disks = tuple(Disk(drive.name, drive.address, drive.file) for drive in current)
    concerns: tuple[Concern, ...] = ()
    if wanted is not None:
        snapshot = choose(snapshots, wanted, vmsd)
        disks, concerns = _of_snapshot(vmsd, settings, snapshot, current), tuple(_left_out(vmsd, snapshot, current))
    elif snapshots:
        concerns = (_present(vmsd, snapshots),)
    if not disks:
        whose = f"the snapshot {wanted!r} of {vmx}" if wanted is not None else str(vmx)
        raise MigrationFailed(
            "vmx-without-disks", f"{whose}: it names no disk", hint="Name the .vmx of a machine with disks"
        )
    if len(disks) > DISKS_MAX:
        raise MigrationFailed(
            "disks-too-many",
            f"{vmx} has {len(disks)} disks, more than the {DISKS_MAX} of one machine",
            hint=f"Detach data disks until {DISKS_MAX} are left, and migrate the others with vmdk",
        )
    return disks, concerns


def _snapshots(vmsd: Path, named: Mandate, *, needed: bool) -> tuple[Snapshot, ...]:
    """The snapshots in the .vmsd, which has to be readable only if one of them is `needed`."""
    try:
        file = open_file(vmsd, named)
        try:
            return read_snapshots(_read_settings(file))
        finally:
            os.close(file.fd)
    except Failure as failure:
        if not needed:
            return ()
        if failure.code != "source-missing":
            raise
        raise MigrationFailed(
            "source-missing",
            f"{vmsd} does not exist, and only it lists the machine's snapshots",
            hint="Copy it beside the .vmx, or remove snapshot to migrate the current state",
        ) from failure


def _of_snapshot(vmsd: Path, settings: Settings, snapshot: Snapshot, current: Sequence[Drive]) -> tuple[Disk, ...]:
    """Its disks, and the machine's independent ones, which it leaves as they are. Raises `vmx-disk-unclear`."""
    frozen: dict[str, FrozenDisk] = {}
    for number, disk in enumerate(snapshot.disks):
        other = frozen.setdefault(disk.device or f"disk {number}", disk)
        if other is not disk:
            raise MigrationFailed(
                "vmx-disk-unclear",
                f"{vmsd}: in the snapshot {snapshot}, {disk.device} is {shown(other.file)} as well as"
                f" {shown(disk.file)}",
                hint="Remove snapshot to migrate the current state, or name the disks in vmdk",
            )
    disks = [Disk(device, address_of(device, settings), disk.file) for device, disk in frozen.items()]
    disks += [
        Disk(drive.name, drive.address, drive.file)
        for drive in current
        if drive.is_independent and drive.name not in frozen
    ]
    order = boot_order(settings)
    placed = [disk for disk in disks if disk.address is not None]
    return (
        *sorted(placed, key=lambda disk: place(disk.address, disk.device, order) if disk.address else ()),
        *(disk for disk in disks if disk.address is None),
    )


def _left_out(vmsd: Path, snapshot: Snapshot, current: Sequence[Drive]) -> Iterator[Concern]:
    yield Concern(
        code="snapshot-chosen",
        message=f"{vmsd}: the disks are those of the snapshot {snapshot}; all other settings are the current ones",
        hint="Remove snapshot to migrate the current state",
        level="information",
    )
    there = {disk.device for disk in snapshot.disks}
    later = [drive.name for drive in current if drive.name not in there and not drive.is_independent]
    if later:
        yield Concern(
            code="disk-not-in-snapshot",
            message=f"{vmsd}: {', '.join(later)} are not in the snapshot {snapshot}, and are not migrated",
            hint="Migrate them with vmdk, if they are needed",
        )


def _present(vmsd: Path, snapshots: Sequence[Snapshot]) -> Concern:
    return Concern(
        code="snapshots-present",
        message=f"{vmsd}: the machine has snapshots ({len(snapshots)}); its current state is migrated, without them",
        hint="Set snapshot to the name of one to migrate that instead",
        level="information",
    )


def _find(vmx: Path, disks: Sequence[Disk], files: NamedFiles) -> tuple[Path, ...]:
    """The file of each disk. Raises as `NamedFiles.find` does, and `vmx-disk-unclear`, `disk-raw-mapped`."""
    found: dict[Path, Disk] = {}
    for disk in disks:
        path = files.find(disk.device, disk.file)
        if path in found:
            other = found[path]
            raise MigrationFailed(
                "vmx-disk-unclear",
                f"{vmx}: {path} would be {other.device} ({shown(other.file)}) as well as {disk.device}"
                f" ({shown(disk.file)})",
                hint="Add datastore_map with the directory of each datastore: two of them have a file of this name",
            )
        _refuse_raw_mapped(path, disk, files.mandate)
        found[path] = disk
    return tuple(found)


def _refuse_raw_mapped(path: Path, disk: Disk, mandate: Mandate) -> None:
    file = open_file(path, mandate)
    try:
        described = read_descriptor(file)
    finally:
        os.close(file.fd)
    if described is not None and described.create_type.lower() in RAW_MAPPED:
        raise MigrationFailed(
            "disk-raw-mapped",
            f"{path}: {disk.device} is a raw device mapping: its content is on a LUN, not in a file",
            hint="Convert it to a virtual disk with `vmkfstools -i` or Storage vMotion, or copy the LUN to a file that"
            " ends in .raw and name it in vmdk",
        )


def _locks(vmx: Path, paths: Sequence[Path], files: NamedFiles) -> Iterator[Concern]:
    """A lock beside the .vmx or a disk: VMware holds it while the machine runs, and ESXi has others on NFS."""
    for folder in dict.fromkeys(path.parent for path in (vmx, *paths)):
        possible = {f"{path.name}.lck" for path in (vmx, *paths) if path.parent == folder}
        found = sorted(name for name in files.names_in(folder) if name in possible or NFS_LOCK.fullmatch(name))
        if found:
            lock = folder / found[0]
            yield Concern(
                code="machine-running",
                message=f"{lock}: the machine is running or was copied while it ran, so its disks may be incomplete",
                hint="Shut the machine down and export it again. If it is off, remove the lock",
            )
            return
