"""plan: everything that can fail early fails here, before a byte is written."""

from __future__ import annotations

import os
from pathlib import Path

from hyper2kvmd import report, run
from hyper2kvmd.disk import space, vmdk, vmx
from hyper2kvmd.disk.conversion import image_bytes
from hyper2kvmd.disk.layout import firmware_of, read_layout
from hyper2kvmd.disk.source_reader import SourceReader
from hyper2kvmd.errors import Kind, MigrationFailed, Unsafe
from hyper2kvmd.guest.access import check_helper
from hyper2kvmd.guest.rootside import Helper
from hyper2kvmd.model import Layout, Migration, Order, Source, SourceDisk, Volume
from hyper2kvmd.progress import Context
from hyper2kvmd.stages.register import domain_exists

REPAIR_ALLOWANCE = 256 << 20
"""Bytes that repair may add: a virtio archive for each kernel, rewritten clusters."""
TOOLS = ("qemu-img", "qemu-storage-daemon")
LINUX_FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs")


def plan(order: Order, ctx: Context) -> Source:
    """Look at the source and at the host.

    Raises the failures of `vmdk.open_source`, and `tool-missing`, `path-not-allowed`, `output-exists`,
    `output-unwritable`, `domain-exists`, `helper-unreachable`, `mount-unsupported`, `space-never`.
    """
    migration = order.migration
    for name in TOOLS:
        run.tool(name)
    with ctx.step("Checking the output"):
        _check_output(order)
    with ctx.step("Reading the source"):
        _require_below(migration.vmdk, order.allowed_source_dirs, "source")
        disk = read_source(migration.vmdk)
        machine = vmx.beside(migration.vmdk)
    for warning in machine.warnings:
        ctx.warn(warning)
    mountable = tuple(volume for volume in disk.layout.volumes if volume.content in LINUX_FILE_SYSTEMS)
    if mountable:
        with ctx.step("Checking the way into the guest"):
            _check_reach(order, mountable, ctx)
    preallocate, reason = _preallocation(migration, disk.layout)
    stored = None if preallocate else disk.data_bytes
    needed = image_bytes(disk.virtual_size, stored, migration.out_format) + REPAIR_ALLOWANCE
    elsewhere = order.output_dir.stat().st_dev != order.conversion_dir.stat().st_dev
    space.require_possible(order.conversion_dir, needed)
    if elsewhere:
        space.require_possible(order.output_dir, needed)
    return Source(
        disks=(disk,),
        nics=machine.nics,
        firmware=firmware_of(disk.layout) if migration.uefi is None else "uefi" if migration.uefi else "bios",
        preallocate=preallocate,
        preallocate_reason=reason,
        needed_bytes=needed,
        publish_bytes=needed if elsewhere else 0,
    )


def read_source(path: Path) -> SourceDisk:
    """Vet one VMDK and read what it holds. Raises as `vmdk.open_source` does."""
    with vmdk.open_source(path) as source:
        return SourceDisk(
            path=path,
            subformat=source.subformat,
            virtual_size=source.virtual_size,
            data_bytes=source.data_bytes,
            files=source.files,
            layout=read_layout(SourceReader(source)),
        )


def _check_reach(order: Order, volumes: tuple[Volume, ...], ctx: Context) -> None:
    """Some file systems out of reach are a warning: only `repair` knows which of them matter. All of them are not."""
    reach = check_helper(Helper(order.helper, ctx.helper_answered), volumes)
    for volume, reason in reach.unmountable:
        ctx.warn(f"{volume.name} ({volume.content}) cannot be mounted on this host: {reason}")
    if len(reach.unmountable) == len(volumes):
        volume, reason = reach.unmountable[0]
        raise MigrationFailed(
            "mount-unsupported",
            f"no file system of this guest can be mounted on this host: {volume.name} ({volume.content}): {reason}",
            hint="load the kernel module that is named, or run the job on a host that has it",
            kind=Kind.OPERATOR,
        )


def _preallocation(migration: Migration, layout: Layout) -> tuple[bool, str]:
    if migration.compress:
        return False, "a compressed image cannot be reserved"
    if migration.sparse == "never":
        return True, "sparse: never"
    scattered = layout.written_by_scatter
    if migration.sparse == "auto" and scattered is not None:
        return True, f"the disk holds {scattered}"
    return False, "holes are kept"


def _check_output(order: Order) -> None:
    migration, directory = order.migration, order.output_dir
    _require_below(directory, order.allowed_output_dirs, "output")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error.strerror or "unknown error") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _unwritable(directory, "permission denied")
    wanted = [migration.output_name, f"{migration.vm_name}.xml", *report.names(migration)]
    wanted += [f"{migration.output_name}.sha256"] if migration.checksum else []
    taken = [name for name in wanted if os.path.lexists(directory / name)]
    if taken:
        raise MigrationFailed(
            "output-exists",
            f"{directory} already holds {' and '.join(taken)}",
            hint="move it away, or choose another vm_name or output_dir: nothing is ever overwritten",
            kind=Kind.OPERATOR,
        )
    if migration.libvirt_import and domain_exists(migration.libvirt_uri, migration.vm_name):
        raise MigrationFailed(
            "domain-exists",
            f"libvirt at {migration.libvirt_uri} already has a domain {migration.vm_name}",
            hint="choose another vm_name, or undefine that domain first",
            kind=Kind.OPERATOR,
        )


def _unwritable(directory: Path, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "output-unwritable",
        f"the output directory {directory} cannot be used: {fact}",
        hint="create it for the user that runs the migration, or name another one",
        kind=Kind.OPERATOR,
    )


def _require_below(path: Path, allowed: tuple[Path, ...], what: str) -> None:
    real = Path(os.path.realpath(path))
    if allowed and not any(real.is_relative_to(os.path.realpath(directory)) for directory in allowed):
        raise Unsafe(
            "path-not-allowed",
            f"the {what} {path} lies outside the directories that this daemon may use",
            hint=f"move it below {', '.join(map(str, allowed))}, or extend allowed_{what}_dirs",
        )
