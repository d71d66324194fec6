"""Linux guests: found by their root, repaired by the fixes, heard on a serial console."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.family import GuestDisks, OverlayDisks, PreparedGuest, describe, warning
from hyper2kvmd.guest.files.tree import GuestTree, Mark, printable
from hyper2kvmd.guest.linux.boot_proof.prepared import prepare_linux
from hyper2kvmd.guest.linux.compose import Composition
from hyper2kvmd.guest.linux.fixes import FIXES, OUTSIDE
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix
from hyper2kvmd.guest.linux.fstab import entries
from hyper2kvmd.guest.linux.inspect import System, inspect_system
from hyper2kvmd.guest.linux.locked import closed
from hyper2kvmd.guest.linux.network.cards import decide_cards
from hyper2kvmd.guest.linux.network.survey import survey
from hyper2kvmd.guest.linux.ostree import find_deployment, never_booted
from hyper2kvmd.guest.linux.root_search import LinuxRoot, find_locked_root, find_root
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Capabilities, Change, Guest

FSTAB = "/etc/fstab"
RELABEL = "/.autorelabel"
"""Makes the guest label its files and restart at its next boot: some hosts' kernels let only root label a new file."""
FIXFILES = ("/sbin/fixfiles", "/usr/sbin/fixfiles")
"""Programs that label the files in the guest."""
LOCKED = (
    "there is no Linux root outside of it, so the guest was NOT repaired: fstab, crypttab and network settings are "
    "unchanged, and the initramfs got no virtio drivers, because they are inside. Give the key (luks_keyfile) and "
    "convert again, unless that initramfs already contains virtio."
)


@dataclass(frozen=True)
class _Staged:
    """Repairs that are to be written."""

    edits: Mark
    points: tuple[str, ...]
    """Mount points of the file systems with these repairs."""
    selinux: bool
    relabels: bool
    """Whether the guest can label its files when it boots."""


@dataclass(frozen=True)
class FoundLinux:
    """A guest whose root was found, but may be locked."""

    disks: GuestDisks
    root: LinuxRoot

    def repair(self) -> Guest:
        """Raises MigrationFailed: as every required repair does, and `volume-locked`."""
        ctx, migration = self.disks.ctx, self.disks.migration
        locked = [_locked(self.disks.layout, migration)] if self.root.locked else []
        composition = Composition(
            self.disks.access,
            self.disks.layout,
            self.root,
            read_only=True,
            identities=self.disks.identities,
        )
        with composition.mounted() as tree:
            troubles = [f"{trouble}; it was not inspected" for trouble in self.root.troubles]
            warnings = [warning(text) for text in (*troubles, *locked, *composition.warnings)]
            for text in warnings:
                ctx.warn(text)
            guest, staged = _stage_repairs(tree, composition, self.disks, self.root)
        written = guest.changes
        if staged.points and not migration.dry_run:
            with ctx.step(f"Writing the repairs of {guest.os_name}"):
                written, unlabelled = _write(composition, staged)
            for text in unlabelled:
                ctx.warn(text)
            warnings += unlabelled
        return guest.with_changes(changes=written, warnings=(*warnings, *guest.warnings))


@dataclass(frozen=True)
class Linux:
    name: Literal["linux"] = "linux"
    unproven_hint: str = (
        "Add console=ttyS0,115200 to its kernel's command line to get its output, or set verify: content"
    )

    def find(self, disks: GuestDisks, /) -> FoundLinux | None:
        """Raises MigrationFailed as `find_root` and `find_deployment` do."""
        root = find_root(disks.access, disks.layout, disks.migration.root) or find_deployment(
            disks.access, disks.layout
        )
        return FoundLinux(disks, root) if root else None

    def prepare_boot(self, disks: OverlayDisks, /) -> PreparedGuest:
        """Raises as `prepare_linux` does."""
        return prepare_linux(disks)


@dataclass(frozen=True)
class LockedLinux(Linux):
    """Linux guests with their root in a LUKS container that no key opens."""

    def find(self, disks: GuestDisks, /) -> FoundLinux | None:
        """Raises MigrationFailed as `find_locked_root` does."""
        root = find_locked_root(disks.access, disks.layout)
        return FoundLinux(disks, root) if root else None


def _stage_repairs(
    tree: GuestTree, composition: Composition, disks: GuestDisks, root: LinuxRoot
) -> tuple[Guest, _Staged]:
    """The guest as found on read-only mounts, and the edits to write."""
    migration, ctx = disks.migration, disks.ctx
    system = inspect_system(tree)
    before = tree.text_or_empty(FSTAB)
    _refuse_overlay(before)
    with ctx.step(f"Preparing the repairs of {system.os_name}"):
        seen = survey(tree)
        cards = decide_cards(seen, disks.nics, migration.vm_name)
        devices, esp = composition.devices, composition.esp
        fixes = OUTSIDE if root.locked else FIXES
        case = Case(system, tree, devices, root.volume, migration, disks.firmware, seen, cards, esp, root.has_rivals)
        news = _apply_all(fixes, case)
        news += map(warning, never_booted(tree))
        # the top of a deployment is immutable
        relabels = not root.folders and any(tree.is_file(path) for path in FIXFILES)
        staged = _Staged(tree.mark(), tree.touched, selinux=system.selinux, relabels=relabels)
    for text in news:
        ctx.warn(text)
    unsigned = _unsigned(system, tree.changes)
    guest = Guest(
        family="linux",
        os_id=system.os_id,
        os_name=system.os_name,
        hostname=system.hostname,
        architecture=system.architecture,
        kernels=tuple(printable(kernel.version) for kernel in system.kernels),
        boot_loader=", ".join(system.boot_loaders),
        root=describe(root.volume) + (f", subvolume {root.subvolume}" if root.subvolume else ""),
        system_disks=composition.system_disks(disks.firmware),
        nics=cards.nics,
        fstab_before=printable(before),
        fstab_after=printable(tree.text_or_empty(FSTAB)),
        capabilities=Capabilities(secure_boot=not unsigned),
        changes=tree.changes,
        concerns=unsigned,
        warnings=tuple(news),
    )
    return guest, staged


def _unsigned(system: System, changes: Iterable[Change]) -> tuple[Concern, ...]:
    """A concern if repairs removed signatures that Secure Boot checks."""
    changed = {change.path for change in changes}
    paths = [printable(image.path) for image in system.unified if image.is_signed]
    if not (lost := [path for path in paths if path in changed]):
        return ()
    unsigned = Concern(
        code="secure-boot-unsigned",
        message=f"repairs removed the signature of {', '.join(lost)}: the new machine gets no Secure Boot",
        hint="Sign it in the guest with a key that its firmware has, then turn Secure Boot on",
    )
    return (unsigned,)


def _refuse_overlay(fstab: str) -> None:
    """In older MicroOS and SLE Micro, files of the upper layer would hide the repaired ones."""
    for entry in entries(fstab):
        if entry.fs_type == "overlay" and entry.mount_point.rstrip("/") == "/etc":
            raise MigrationFailed(
                "guest-etc-overlay",
                f"the guest's /etc is an overlay ({entry.option('upperdir') or 'no upperdir'} over the root): repaired "
                "files would be hidden by those of the upper layer",
                hint="Add the driver ahci to the initramfs and use stable names in the guest (transactional-update), "
                "then migrate it with guest: none",
            )


def _write(composition: Composition, staged: _Staged) -> tuple[tuple[Change, ...], list[str]]:
    """The changes, and warnings. Raises MigrationFailed as `Access.mount` and `GuestTree.commit` do."""
    with composition.writable(staged.points) as tree:
        tree.restore(staged.edits)
        changes = tree.commit()
        unlabelled = ", ".join(tree.unlabelled) if staged.selinux else ""
    if not unlabelled:
        return changes, []
    if not staged.relabels:
        return changes, [warning(f"files without an SELinux label: {unlabelled}. Run restorecon on them")]
    with composition.writable(("/",)) as tree:
        tree.write_text(RELABEL, "", fix="selinux", summary=f"the next boot labels all files: {unlabelled}")
        return changes + tree.commit(), []


def _locked(layout: Layout, migration: Migration) -> str:
    """The warning about a root that cannot be read. Raises MigrationFailed (`volume-locked`) if a key was given."""
    fact = "; ".join(printable(f"{volume.name}: {volume.obstacle}") for volume in closed(layout))
    if migration.luks_keyfile:
        raise MigrationFailed(
            "volume-locked",
            f"no Linux root that can be opened: {fact}",
            hint="Correct luks_keyfile, or remove it to convert the guest without a repair",
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
            warnings += [warning(text) for text in fix.apply(case)]
        except MigrationFailed as failure:
            if fix.required or failure.kind is Kind.RETRY:
                raise
            case.tree.restore(mark)
            fact = f"the repair {fix.name} failed: {failure.message}"
            warnings.append(printable(str(Concern(code="repair-failed", message=fact, hint=failure.hint))))
    return warnings
