"""Repair: make the guest in the converted image boot on KVM, offline, without running anything of it."""

from __future__ import annotations

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.files.locked import closed
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.linux.compose import Composition
from hyper2kvmd.guest.linux.fixes import FIXES, OUTSIDE
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix
from hyper2kvmd.guest.linux.inspect import Found, describe, find_root, look_at
from hyper2kvmd.guest.linux.network.cards import settle
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


def repair(bench: Bench, plan: Plan, image: Image) -> Guest:
    """Find the guest's root in `image`, mend it, and say what changed.

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
        ctx.warn(NOT_LINUX[found.family])
        cards = settle(NOTHING, nics, migration.vm_name)
        return Guest(
            family=found.family,
            nics=cards.nics,
            capabilities=WITHOUT_DRIVERS if found.family == "windows" else Capabilities(),
            warnings=(NOT_LINUX[found.family],),
        )
    warnings = [f"{trouble}; it was not inspected" for trouble in found.troubles]
    if found.family == "locked":
        warnings += [_locked(layout, migration)]
    composition = Composition(opened, layout, found, read_only=migration.dry_run)
    with composition.mounted() as tree:
        warnings += composition.warnings
        for warning in warnings:
            ctx.warn(warning)
        return _mend(tree, composition, found, migration, nics, warnings, ctx)


def _mend(
    tree: GuestTree,
    composition: Composition,
    found: Found,
    migration: Migration,
    nics: tuple[SourceNic, ...],
    warnings: list[str],
    ctx: Context,
) -> Guest:
    assert found.volume is not None  # noqa: S101 - narrows the type
    system = look_at(tree)
    before = tree.text_or_empty(FSTAB)
    with ctx.step(f"Repairing {system.os_name}"):
        seen = survey(tree)
        cards = settle(seen, nics, migration.vm_name)
        devices, esp = composition.devices, composition.esp
        fixes = OUTSIDE if found.family == "locked" else FIXES
        news = _apply_all(fixes, Case(system, tree, devices, found.volume, migration, seen, cards, esp))
        after = tree.text_or_empty(FSTAB)
        changes = _written(tree, migration)
        if system.selinux and tree.unlabelled:
            unlabelled = ", ".join(tree.unlabelled)
            if any(tree.is_file(path) for path in FIXFILES):
                tree.write_text(RELABEL, "", fix="selinux", summary=f"the next boot labels all files: {unlabelled}")
                changes += tree.commit()
            else:
                news.append(f"files without an SELinux label: {unlabelled}; run restorecon on them")
    for warning in news:
        ctx.warn(warning)
    return Guest(
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
        fstab_after=printable(after),
        changes=changes,
        warnings=(*warnings, *news),
    )


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
            case.tree.roll_back(mark)
            warnings.append(printable(f"{fix.name} was not repaired: {failure.message}"))
    return warnings


def _written(tree: GuestTree, migration: Migration) -> tuple[Change, ...]:
    return tree.changes if migration.dry_run else tree.commit()
