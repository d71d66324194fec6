"""plan: find everything that can fail early, before a byte is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hyper2kvmd import units
from hyper2kvmd.booting import decide_firmware
from hyper2kvmd.disk.images.image import image_bytes
from hyper2kvmd.disk.reader import SourceReader
from hyper2kvmd.disk.sources.opened import Sources, describe
from hyper2kvmd.disk.sources.snapshots import check_snapshots
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.findings import Findings
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS, check_helper, obstacle
from hyper2kvmd.guest.windows.drivers.vetting import vet
from hyper2kvmd.guest.windows.volumes import check_windows
from hyper2kvmd.hardware import expected_hardware, hardware_concerns, require_possible
from hyper2kvmd.host import run, space
from hyper2kvmd.host.hooks import check_hooks
from hyper2kvmd.host.kvm import EMULATOR
from hyper2kvmd.machines.archives.unpacking import unpacked_bytes
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern, first_concerns
from hyper2kvmd.model.disks import DiskRef, Layout, SourceDisk, Volume
from hyper2kvmd.model.machine import Machine, Plan
from hyper2kvmd.progress import Context
from hyper2kvmd.proof.firmware import uefi_firmware
from hyper2kvmd.resizing import growth, new_sizes
from hyper2kvmd.stages.bench import Bench
from hyper2kvmd.targets.libvirt.connection import VIRSH
from hyper2kvmd.targets.target import Target
from hyper2kvmd.volumes.layout import read_layout
from hyper2kvmd.volumes.mapping import OpenDisks
from hyper2kvmd.volumes.ntfs.tool import check_library
from hyper2kvmd.volumes.superblock import LINUX_FILE_SYSTEMS

REPAIR_ALLOWANCE = 256 << 20
"""Bytes that repair may add: a virtio archive for each kernel, rewritten clusters."""
OVERLAY_ALLOWANCE = 256 << 20
"""Bytes of the overlays that QCOW2 images are repaired on, with the same content until they are committed."""
NOTABLE_DIFFERENCE = 1 << 20
"""Bytes: descriptions are rounded."""
MAX_HASHED_HOLES = 4 << 40
"""Bytes: about an hour."""
WINDOWS = ("ntfs", "BitLocker")
"""Contents of a volume that may be Windows."""
TOOLS = ("qemu-img", "qemu-storage-daemon")
"""Programs of every migration. What the helper and the transport need depends on the kernel: see `check_helper`."""


def plan(bench: Bench) -> Plan:
    """Read the source and check the host. Independent failures are reported together.

    Raises the failures of `open_disk` and of the target's `check`, `room` and `examine`, of `check_windows` and
    `check_library`, and `tool-missing`, `firmware-missing`, `source-format-differs`, `source-repeated`,
    `source-has-snapshot`, `path-not-allowed`, `helper-unreachable`, `mount-unsupported`, `checksum-too-long`,
    `resize-invalid`, `space-never`, `secure-boot-impossible`; several of them as `several-problems`.
    """
    target = bench.target  # refused before anything is started or made
    for note in bench.order.notes:
        bench.ctx.note(note)
    findings = Findings()
    for name in _programs(bench.migration):
        with findings.noted():
            run.tool(name)
    with findings.noted():
        check_hooks(bench.migration.hooks, bench.order.bounds.hooks)
    checked: Target | None = None
    with bench.ctx.step("Checking the output"), findings.noted():
        target.check()
        checked = target
    with findings.noted():
        planned = _plan(bench, checked, findings)
    findings.require_none()
    return planned


def _plan(bench: Bench, target: Target | None, findings: Findings) -> Plan:
    """The plan from the source; `target` only if it passed its check.

    `findings` gets the failures after which further checks make sense: then the plan is not complete.
    """
    order, migration, ctx = bench.order, bench.migration, bench.ctx
    snapshots: tuple[Concern, ...] = ()
    with ctx.step("Reading the source"):
        machine = read_machine(migration, bench.sources)
        disks, layout = read_disks(bench.sources, [disk.at for disk in machine.disks], bench.keys())
        _require_formats(machine, disks)
        opened = [source.files[0] for source in bench.sources.open([disk.at for disk in disks]) if source.files]
        with findings.noted():
            if migration.vmdk:  # a description names the disks that the machine runs on
                snapshots = check_snapshots(opened, machine.disk_names, migration.snapshot, bench.mandate)
    firmware, doubts = decide_firmware(migration.uefi, machine.firmware, layout)
    concerns = _noted(ctx, (*machine.concerns, *_about_disks(machine, disks, layout), *snapshots, *doubts))
    if any(volume.content in FILE_SYSTEMS for volume in layout.volumes):
        with ctx.step("Checking access to the guest"), findings.noted():
            linux = tuple(volume for volume in layout.volumes if volume.content in LINUX_FILE_SYSTEMS)
            concerns += _check_reach(bench, linux)
    with findings.noted():
        concerns += _noted(ctx, _check_windows(bench, disks, layout))
    with findings.noted():
        _check_drivers(bench, layout)
    disks = tuple(_allotted(migration, layout, number, disk) for number, disk in enumerate(disks))
    sizes = new_sizes(migration, disks)
    concerns += _noted(ctx, growth(sizes, disks, layout))
    published, unpacked = _published_bytes(migration, disks, sizes), unpacked_bytes(bench.folder)
    needed = published + (OVERLAY_ALLOWANCE if migration.out_format == "qcow2" else 0)
    with findings.noted():
        _require_hashable(migration, disks, sizes)
    with findings.noted():
        space.require_possible(order.conversion_dir, needed + unpacked)
    planned = Plan(
        machine=machine,
        disks=disks,
        layout=layout,
        firmware=firmware,
        needed_bytes=needed,
        unpacked_bytes=unpacked,
    )
    _check_hardware(migration, planned, findings)
    concerns += _noted(ctx, hardware_concerns(migration, planned))
    if target is not None:
        planned = planned.with_changes(publish_bytes=target.room(published))
        with ctx.step("Checking the target"):
            concerns += _noted(ctx, target.examine(planned))
    return planned.with_changes(concerns=first_concerns(concerns))


def _check_hardware(migration: Migration, planned: Plan, findings: Findings) -> None:
    with findings.noted():
        require_possible(migration, planned)
    if migration.verify == "boot" and planned.firmware == "uefi":
        with findings.noted():
            uefi_firmware(secure_boot=expected_hardware(migration, planned).secure_boot)


def _check_windows(bench: Bench, disks: Sequence[SourceDisk], layout: Layout) -> tuple[Concern, ...]:
    """Concerns about volumes of a Windows guest. Raises as `check_windows` and `check_library` do."""
    if bench.migration.guest == "none":
        return ()
    readers = OpenDisks([SourceReader(source) for source in bench.sources.open([disk.at for disk in disks])])
    found, concerns = check_windows(layout, lambda volume: readers.reader(volume.stretches))
    if found:
        check_library()
    return concerns


def _check_drivers(bench: Bench, layout: Layout) -> None:
    """Raises as `vet` does. The configuration's drivers matter only if the disks may hold Windows.

    What is said about signatures depends on the release: the inspection of the guest says it.
    """
    if bench.migration.virtio_win is None and not any(volume.content in WINDOWS for volume in layout.volumes):
        return
    with bench.driver_source() as source:
        if source is not None:
            vet(source)


def _programs(migration: Migration) -> Iterator[str]:
    yield from TOOLS
    if migration.verify == "boot":
        yield EMULATOR
    if migration.libvirt_import:
        yield VIRSH


def read_disks(
    sources: Sources, refs: Sequence[DiskRef], keys: tuple[bytes, ...] = ()
) -> tuple[tuple[SourceDisk, ...], Layout]:
    """Open a machine's disks and read their common layout; `keys` are tried on LUKS containers.

    Raises as `Sources.open` does.
    """
    opened = sources.open(refs)
    disks = tuple(describe(at, source) for at, source in zip(refs, opened, strict=True))
    return disks, read_layout([SourceReader(source) for source in opened], keys)


def _require_formats(machine: Machine, disks: Sequence[SourceDisk]) -> None:
    """Raise MigrationFailed (`source-format-differs`) for a disk of another format than its description states."""
    for described, disk in zip(machine.disks, disks, strict=True):
        if described.format not in (None, disk.format):
            raise MigrationFailed(
                "source-format-differs",
                f"{disk.at} is {described.format} for its machine, but has the content of {disk.format}",
                hint="Correct the format in the description only if you know that it is wrong. A guest can write such"
                " a header into its own raw disk",
            )


def _about_disks(machine: Machine, disks: Sequence[SourceDisk], layout: Layout) -> Iterator[Concern]:
    yield from _about_sizes(machine, disks)
    for disk in disks:
        yield from disk.concerns
    for volume in layout.volumes:
        if volume.incomplete:
            yield Concern(
                code="volume-incomplete",
                message=f"{volume.name}: {volume.obstacle}",
                hint="Migrate all disks of the machine together: list them in vmdk:, boot disk first",
            )


def _about_sizes(machine: Machine, disks: Sequence[SourceDisk]) -> Iterator[Concern]:
    """Concerns about disks whose own headers contradict the description of the machine: they are believed."""
    for described, disk in zip(machine.disks, disks, strict=True):
        if described.capacity is not None and abs(described.capacity - disk.virtual_size) >= NOTABLE_DIFFERENCE:
            said, own = units.size(described.capacity), units.size(disk.virtual_size)
            yield Concern(
                code="capacity-differs",
                message=f"{disk.at} is a disk of {own}, but the description of its machine says {said}: {own} are used",
                hint="Check that the file belongs to this machine",
            )


def _require_hashable(migration: Migration, disks: Sequence[SourceDisk], sizes: Sequence[int]) -> None:
    """A checksum covers the holes of a raw image, which occupy no space: nothing else limits their size."""
    holes = sum(sizes) - sum(disk.data_bytes for disk in disks)
    if migration.checksum and migration.out_format == "raw" and holes > MAX_HASHED_HOLES:
        raise MigrationFailed(
            "checksum-too-long",
            f"the disks have {units.size(holes)} of zeros, and a checksum of raw images covers at most "
            f"{units.size(MAX_HASHED_HOLES)} of them",
            hint="Set checksum: false, or out_format: qcow2",
        )


def _allotted(migration: Migration, layout: Layout, number: int, disk: SourceDisk) -> SourceDisk:
    preallocate, reason = _preallocation(migration, layout.written_by_scatter(number))
    return disk.with_changes(preallocate=preallocate, preallocate_reason=reason)


def _published_bytes(migration: Migration, disks: Sequence[SourceDisk], sizes: Sequence[int]) -> int:
    needed = REPAIR_ALLOWANCE
    for disk, size in zip(disks, sizes, strict=True):
        stored = None if disk.preallocate else disk.data_bytes
        needed += image_bytes(size, stored, migration.out_format)
    return needed


def _noted(ctx: Context, concerns: Iterable[Concern]) -> tuple[Concern, ...]:
    """The concerns, now in the log. The plan has them for the report."""
    found = tuple(concerns)
    for concern in found:
        ctx.note(concern)
    return found


def _check_reach(bench: Bench, volumes: tuple[Volume, ...]) -> tuple[Concern, ...]:
    """Concerns about unmountable file systems: only `repair` shows which matter. If all are, that is an error."""
    raw = bench.migration.out_format == "raw" and bench.migration.verify != "boot"
    reach = check_helper(bench.helper, volumes, raw=raw)
    if reach.unmountable and len(reach.unmountable) == len(volumes):
        volume, reason = reach.unmountable[0]
        raise MigrationFailed(
            "mount-unsupported",
            f"no file system of this guest can be mounted on this host: {volume.name} ({volume.content}): {reason}",
            hint="Load the named kernel module, or run the job on a host that has it",
            kind=Kind.OPERATOR,
        )
    return _noted(bench.ctx, (_unmountable(volume, reason) for volume, reason in reach.unmountable))


def _unmountable(volume: Volume, reason: str) -> Concern:
    of_host = obstacle(volume) is None
    return Concern(
        code="volume-unmountable",
        message=f"{volume.name} ({volume.content}) cannot be mounted on this host: {reason}",
        hint="Load the named kernel module, or run the job on a host that has it"
        if of_host
        else "Correct names of disks and network cards on it by hand in the new machine",
    )


def _preallocation(migration: Migration, scattered: str | None) -> tuple[bool, str]:
    if migration.compress:
        return False, "the space of a compressed image cannot be reserved"
    if migration.sparse == "never":
        return True, "sparse: never"
    if migration.sparse == "auto" and scattered is not None:
        return True, f"the disk holds {scattered}"
    return False, "holes in the source occupy no space in the image"
