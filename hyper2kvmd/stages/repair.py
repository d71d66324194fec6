"""Repair: make the guest in the converted image boot on KVM, offline, without running anything of it."""

from __future__ import annotations

from dataclasses import dataclass

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.files.locked import closed
from hyper2kvmd.guest.files.tree import GuestTree, Mark, printable
from hyper2kvmd.guest.linux.compose import Composition
from hyper2kvmd.guest.linux.fixes import FIXES, OUTSIDE
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix
from hyper2kvmd.guest.linux.inspect import Found, describe, find_root, inspect_system
from hyper2kvmd.guest.linux.network.cards import decide_cards
from hyper2kvmd.guest.linux.network.survey import NOTHING, survey
from hyper2kvmd.guest.mounts import access
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.windows import WITHOUT_DRIVERS
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image, Layout
from hyper2kvmd.model.guest import Capabilities, Change, Guest
from hyper2kvmd.model.machine import Plan, SourceNic
from hyper2kvmd.progress import Context
from hyper2kvmd.stages.bench import Bench

FSTAB = "/etc/fstab"
RELABEL = "/.autorelabel"
"""Makes the guest label its files and restart when it boots next: some hosts' kernels let nobody but root label a new
file."""
FIXFILES = ("/sbin/fixfiles", "/usr/sbin/fixfiles")
"""What does that in the guest."""
NOT_LINUX = {
    "windows": "this is a Windows guest: virtio drivers were NOT injected, so its domain has SATA disks and e1000e "
    "network cards; install the virtio drivers in it before you change these to virtio",
    "none": "no operating system was found on this disk: it was converted as a data disk, nothing was repaired",
}
LOCKED = (
    "there is no Linux root outside of it, so the guest was NOT repaired: fstab, crypttab and network settings are "
    "unchanged, and the initramfs got no virtio drivers, because they are inside; give the key (luks_keyfile) and "
    "convert again, unless that initramfs already contains virtio"
)


@dataclass(frozen=True)
class _Staged:
    """Repairs that are to be written."""

    edits: Mark
    points: tuple[str, ...]
    """Mount points of the file systems that they lie in."""
    selinux: bool
    relabels: bool
    """Whether the guest can label its files when it boots."""


def repair(bench: Bench, plan: Plan, image: Image) -> Guest:
    """Find the guest's root in `image`, mend it, and say what changed.

    A file system is mounted writable only if an edit is written to it or its journal is dirty.

    Raises MigrationFailed: as `find_root` and every required repair does, as `Access.mount` does, and `guest-damaged`
    for a file system that fails while it is read.
    """
    try:
        with access.open_image(image, bench.helper, bench.folder, bench.keys()) as opened:
            return repair_opened(opened, image.layout, bench.migration, bench.ctx, plan.machine.nics)
    except OSError as error:
        raise MigrationFailed(
            "guest-damaged",
            f"a file system of the guest is not usable: {error}",
            hint="check it in the guest (fsck), shut the guest down cleanly, export it again",
            kind=Kind.PERMANENT,
        ) from error


def repair_opened(
    opened: Access, layout: Layout, migration: Migration, ctx: Context, nics: tuple[SourceNic, ...] = ()
) -> Guest:
    """`nics` are the source's network cards, as far as they are known."""
    with ctx.step("Looking for the operating system"):
        found = find_root(opened, layout)
    if found.volume is None:
        warnings = [*_replayed(opened), NOT_LINUX[found.family]]
        for warning in warnings:
            ctx.warn(warning)
        cards = decide_cards(NOTHING, nics, migration.vm_name)
        return Guest(
            family=found.family,
            nics=cards.nics,
            capabilities=WITHOUT_DRIVERS if found.family == "windows" else Capabilities(),
            warnings=tuple(warnings),
        )
    locked = [_locked(layout, migration)] if found.family == "locked" else []
    composition = Composition(opened, layout, found, read_only=True)
    with composition.mounted() as tree:
        troubles = [f"{trouble}; it was not inspected" for trouble in found.troubles]
        warnings = [*_replayed(opened), *troubles, *locked, *composition.warnings]
        for warning in warnings:
            ctx.warn(warning)
        guest, staged = _mend(tree, composition, found, migration, nics, ctx)
    written = guest.changes
    if staged.points and not migration.dry_run:
        with ctx.step(f"Writing the repairs of {guest.os_name}"):
            written, unlabelled = _write(composition, staged)
        for warning in unlabelled:
            ctx.warn(warning)
        warnings += unlabelled
    return guest.with_changes(changes=written, warnings=(*warnings, *guest.warnings))


def _replayed(opened: Access) -> list[str]:
    return [
        f"{describe(volume)}: its journal was replayed, which changed it: it was in use when the disk was copied"
        for volume in opened.replayed
    ]


def _mend(
    tree: GuestTree,
    composition: Composition,
    found: Found,
    migration: Migration,
    nics: tuple[SourceNic, ...],
    ctx: Context,
) -> tuple[Guest, _Staged]:
    """What the guest is and needs, on read-only mounts; and the edits to write."""
    assert found.volume is not None  # noqa: S101 - narrows the type
    system = inspect_system(tree)
    before = tree.text_or_empty(FSTAB)
    with ctx.step(f"Repairing {system.os_name}"):
        seen = survey(tree)
        cards = decide_cards(seen, nics, migration.vm_name)
        devices, esp = composition.devices, composition.esp
        fixes = OUTSIDE if found.family == "locked" else FIXES
        news = _apply_all(fixes, Case(system, tree, devices, found.volume, migration, seen, cards, esp))
        relabels = any(tree.is_file(path) for path in FIXFILES)
        staged = _Staged(tree.mark(), tree.touched, selinux=system.selinux, relabels=relabels)
    for warning in news:
        ctx.warn(warning)
    guest = Guest(
        family="linux",
        os_id=system.os_id,
        os_name=system.os_name,
        hostname=system.hostname,
        architecture=system.architecture,
        kernels=tuple(printable(kernel.version) for kernel in system.kernels),
        boot_loader=", ".join(system.boot_loaders),
        root=describe(found.volume) + (f", subvolume {found.subvolume}" if found.subvolume else ""),
        nics=cards.nics,
        fstab_before=printable(before),
        fstab_after=printable(tree.text_or_empty(FSTAB)),
        changes=tree.changes,
        warnings=tuple(news),
    )
    return guest, staged


def _write(composition: Composition, staged: _Staged) -> tuple[tuple[Change, ...], list[str]]:
    """What was changed, and warnings. Raises MigrationFailed as `Access.mount` and `GuestTree.commit` do."""
    with composition.writable(staged.points) as tree:
        tree.restore(staged.edits)
        changes = tree.commit()
        unlabelled = ", ".join(tree.unlabelled) if staged.selinux else ""
    if not unlabelled:
        return changes, []
    if not staged.relabels:
        return changes, [f"files without an SELinux label: {unlabelled}; run restorecon on them"]
    with composition.writable(("/",)) as tree:
        tree.write_text(RELABEL, "", fix="selinux", summary=f"the next boot labels all files: {unlabelled}")
        return changes + tree.commit(), []


def _locked(layout: Layout, migration: Migration) -> str:
    """What to tell of a root that nobody can read. Raises MigrationFailed (`volume-locked`) where a key was given."""
    fact = "; ".join(printable(f"{volume.name}: {volume.obstacle}") for volume in closed(layout))
    if migration.luks_keyfile:
        raise MigrationFailed(
            "volume-locked",
            f"no Linux root that can be opened: {fact}",
            hint="give a key file that opens it (luks_keyfile), or none at all to have it converted without a repair",
            kind=Kind.OPERATOR,
        )
    return f"{fact}; {LOCKED}"


def _apply_all(fixes: tuple[Fix, ...], case: Case) -> list[str]:
    """Stage every repair that is wanted; an optional one that fails leaves no edit behind."""
    warnings = []
    for fix in fixes:
        if not fix.wanted(case.migration):
            continue
        mark = case.tree.mark()
        try:
            warnings += [printable(f"{fix.name}: {warning}") for warning in fix.apply(case)]
        except MigrationFailed as failure:
            if fix.required:
                raise
            case.tree.restore(mark)
            warnings.append(printable(f"{fix.name} was not repaired: {failure.message}"))
    return warnings
