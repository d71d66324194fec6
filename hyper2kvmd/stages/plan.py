"""plan: everything that can fail early fails here, before a byte is written."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from hyper2kvmd import report
from hyper2kvmd.disk.images.image import image_bytes
from hyper2kvmd.disk.key_files import read_keys
from hyper2kvmd.disk.reader import SourceReader
from hyper2kvmd.disk.sources.opening import open_source
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS, check_helper
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.hardware import decide_firmware
from hyper2kvmd.host import run, space
from hyper2kvmd.host.destination import nearest_output, require_unshared
from hyper2kvmd.host.mandate import ANYONE, Mandate, require_below
from hyper2kvmd.host.placing import names_in
from hyper2kvmd.host.workspace import real_conversion_dir, require_writable, way_to_write
from hyper2kvmd.machines import vmx
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout, SourceDisk, Volume
from hyper2kvmd.model.machine import Source
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Context
from hyper2kvmd.targets.libvirt.connection import Libvirt
from hyper2kvmd.targets.libvirt.definition import domain_exists
from hyper2kvmd.volumes.layout import firmware_of, read_layout

REPAIR_ALLOWANCE = 256 << 20
"""Bytes that repair may add: a virtio archive for each kernel, rewritten clusters."""
TOOLS = ("qemu-img", "qemu-storage-daemon")
LINUX_FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs")


def plan(order: Order, folder: Path, ctx: Context) -> Source:
    """Look at the source and at the host; `folder` is the job's own.

    Raises the failures of `open_source`, and `tool-missing`, `source-repeated`, `path-not-allowed`,
    `libvirt-uri-not-allowed`, `output-exists`, `output-unwritable`, `domain-exists`, `helper-unreachable`,
    `mount-unsupported`, `space-never`.
    """
    migration, mandate = order.migration, Mandate.of(order)
    Libvirt.of(order)  # refused before anything is started or made
    for name in TOOLS:
        run.tool(name)
    with ctx.step("Checking the output"):
        _check_output(order)
    with ctx.step("Reading the source"):
        for path in (*migration.vmdk, *migration.luks_keyfile):
            _require_below(path, order.bounds.source_dirs, "source")
        disks, layout = read_sources(migration.vmdk, folder, read_keys(migration.luks_keyfile, mandate), mandate)
        machine = vmx.beside(migration.vmdk[0], mandate)
    for warning in machine.warnings:
        ctx.warn(warning)
    if any(volume.content in FILE_SYSTEMS for volume in layout.volumes):
        with ctx.step("Checking access to the guest"):
            linux = tuple(volume for volume in layout.volumes if volume.content in LINUX_FILE_SYSTEMS)
            _check_reach(order, linux, ctx)
    disks = tuple(_allotted(migration, layout, number, disk) for number, disk in enumerate(disks))
    needed = REPAIR_ALLOWANCE
    for disk in disks:
        stored = None if disk.preallocate else disk.data_bytes
        needed += image_bytes(disk.virtual_size, stored, migration.out_format)
    space.require_possible(order.conversion_dir, needed)
    with nearest_output(order) as nearest:
        elsewhere = os.fstat(nearest.handle).st_dev != order.conversion_dir.stat().st_dev
        if elsewhere:
            space.require_possible(Path(f"/proc/self/fd/{nearest.handle}"), needed)
    return Source(
        disks=disks,
        layout=layout,
        nics=machine.nics,
        firmware=decide_firmware(migration.uefi, firmware_of(layout)),
        needed_bytes=needed,
        publish_bytes=needed if elsewhere else 0,
    )


def settled(order: Order) -> Order:
    """The order with its directories as they are in truth, links followed once; before any directory is made.

    Raises Unsafe (`path-not-allowed`) for a directory that the job may not name.
    """
    conversion_dir = real_conversion_dir(order.conversion_dir, order.bounds.conversion_dirs)
    output_dir = Path(os.path.realpath(order.output_dir))
    require_below(order.output_dir, output_dir, order.bounds.output_dirs, "output")
    return order.with_changes(conversion_dir=conversion_dir, output_dir=output_dir)


def read_sources(
    paths: tuple[Path, ...], folder: Path, keys: tuple[bytes, ...] = (), mandate: Mandate = ANYONE
) -> tuple[tuple[SourceDisk, ...], Layout]:
    """Vet a machine's disks and read what they hold, together; `keys` are tried on LUKS containers.

    Sockets of QEMU's may be made in `folder`. Raises as `open_source` does, and MigrationFailed (`source-repeated`) for
    files that two of them share.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(open_source(path, folder, mandate)) for path in paths]
        disks = tuple(
            SourceDisk(
                path=path,
                format=source.format,
                subformat=source.subformat,
                virtual_size=source.virtual_size,
                data_bytes=source.data_bytes,
                files=source.files,
            )
            for path, source in zip(paths, opened, strict=True)
        )
        _require_apart(disks)
        return disks, read_layout([SourceReader(source) for source in opened], keys)


def _require_apart(disks: tuple[SourceDisk, ...]) -> None:
    owner: dict[tuple[int, int], SourceDisk] = {}
    for disk in disks:
        for file in disk.files:
            other = owner.setdefault((file.device, file.inode), disk)
            if other is not disk:
                raise MigrationFailed(
                    "source-repeated",
                    f"{other.path} and {disk.path} both use {file.path}",
                    hint="name each disk of the machine once, and only the topmost snapshot of a chain",
                )


def _allotted(migration: Migration, layout: Layout, number: int, disk: SourceDisk) -> SourceDisk:
    preallocate, reason = _preallocation(migration, layout.written_by_scatter(number))
    return disk.with_changes(preallocate=preallocate, preallocate_reason=reason)


def _check_reach(order: Order, volumes: tuple[Volume, ...], ctx: Context) -> None:
    """Some file systems out of reach are a warning: only `repair` knows which of them matter. All of them are not."""
    raw = order.migration.out_format == "raw" and order.migration.verify != "boot"
    reach = check_helper(Helper(order.helper, ctx.helper_answered), volumes, raw=raw)
    for volume, reason in reach.unmountable:
        ctx.warn(f"{volume.name} ({volume.content}) cannot be mounted on this host: {reason}")
    if reach.unmountable and len(reach.unmountable) == len(volumes):
        volume, reason = reach.unmountable[0]
        raise MigrationFailed(
            "mount-unsupported",
            f"no file system of this guest can be mounted on this host: {volume.name} ({volume.content}): {reason}",
            hint="load the named kernel module, or run the job on a host that has it",
            kind=Kind.OPERATOR,
        )


def _preallocation(migration: Migration, scattered: str | None) -> tuple[bool, str]:
    if migration.compress:
        return False, "a compressed image cannot be reserved"
    if migration.sparse == "never":
        return True, "sparse: never"
    if migration.sparse == "auto" and scattered is not None:
        return True, f"the disk holds {scattered}"
    return False, "holes are kept"


def _check_output(order: Order) -> None:
    migration, directory = order.migration, order.output_dir
    try:
        with nearest_output(order) as nearest:
            present = frozenset[str]() if nearest.missing else names_in(nearest.handle)
            require_writable(Path(f"/proc/self/fd/{nearest.handle}"))
        if migration.libvirt_import:
            require_unshared(order)
    except OSError as error:
        raise MigrationFailed(
            "output-unwritable",
            f"the output directory {directory} cannot be used: {error.strerror}",
            hint=way_to_write(directory, error),
            kind=Kind.OPERATOR,
        ) from error
    wanted = [*migration.output_names, f"{migration.vm_name}.xml", *report.names(migration)]
    wanted += [f"{name}.sha256" for name in migration.output_names] if migration.checksum else []
    taken = [name for name in wanted if name in present]
    if taken:
        raise MigrationFailed(
            "output-exists",
            f"{directory} already contains {' and '.join(taken)}",
            hint="move it away, or choose another vm_name or output_dir: nothing is ever overwritten",
            kind=Kind.OPERATOR,
        )
    if migration.libvirt_import and domain_exists(Libvirt.of(order), migration.vm_name):
        raise MigrationFailed(
            "domain-exists",
            f"libvirt at {migration.libvirt_uri} already has a domain {migration.vm_name}",
            hint="choose another vm_name, or undefine that domain first",
            kind=Kind.OPERATOR,
        )


def _require_below(path: Path, allowed: tuple[Path, ...], what: str) -> None:
    """Before anything is opened or made: what lies elsewhere is not even said to exist."""
    require_below(path, Path(os.path.realpath(path)), allowed, what)
