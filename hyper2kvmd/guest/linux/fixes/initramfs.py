"""Virtio in the initramfs of every installed kernel: an archive of the guest's own modules is appended.

An initramfs built for VMware's hardware lacks the drivers of KVM's disks and finds no root; no program of the guest is
run to change that. The cpio archive has the missing modules unchanged, the kernel's module indexes and a dependency
index for the extended initramfs, whose udev loads them by alias. It also overrides baked-in settings with stale names,
and LVM's devices file if that names disks of the old machine; the existing archives stay unchanged.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux import cpio, initrd, modules
from hyper2kvmd.guest.linux.fixes import baked, lvm_devices, nic_names
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, when_regenerating
from hyper2kvmd.guest.linux.inspect import Kernel

NEEDED = ("virtio_pci", "virtio_blk", "virtio_scsi")
"""Without these the guest may not see its disk."""
ADDED = (
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    *NEEDED,
    "virtio_net",
    "sd_mod",
)
INDEXES = (
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.builtin.modinfo",
    "modules.devname",
    "modules.order",
    "modules.softdep",
    "modules.symbols",
    "modules.symbols.bin",
)
"""modules.dep is generated."""
NOWHERE = "taken-out-by-hyper2kvm"
"""Target of a link that replaces a file: no archive can remove one, but a dangling link counts as missing."""


def apply(case: Case) -> list[str]:
    """Raises MigrationFailed when no kernel of the guest will find a virtio disk."""
    unified = {image.version for image in case.system.unified}
    kernels = [kernel for kernel in case.system.kernels if kernel.image or kernel.initrds or kernel.version in unified]
    if not kernels:
        raise MigrationFailed(
            "guest-kernel-missing",
            "no installed kernel was found in the guest: nothing in /boot belongs to a folder in /lib/modules",
            hint="Set regen_initramfs: false if the guest boots a kernel with virtio from another place",
        )
    failures: list[tuple[Kernel, MigrationFailed]] = []
    warnings: list[str] = []
    for kernel in reversed(kernels):  # the newest one first, as long as there is room
        try:
            warnings += _mend(case, kernel, loose=kernel.version not in unified)
        except MigrationFailed as failure:
            failures.append((kernel, failure))
    if len(failures) == len(kernels):
        raise failures[-1][1]
    lost = [f"kernel {kernel.version} will not find its disk: {failure.message}" for kernel, failure in failures]
    return warnings + lost


def _mend(case: Case, kernel: Kernel, *, loose: bool) -> list[str]:
    """Returns warnings. `loose`: no unified kernel image contains the initramfs."""
    if not kernel.initrds and loose and not _modules_of(case, kernel)[1].issuperset(("virtio_pci", "virtio_blk")):
        raise MigrationFailed(
            "initrd-missing",
            f"the guest's kernel {kernel.version} has no initramfs, and its virtio drivers are modules",
            hint="Build an initramfs for it in the guest, then convert again",
        )
    warnings: list[str] = []
    for path in kernel.initrds:
        with case.tree.open(path) as file:
            more = addition(case, kernel, file, path)
        warnings += more.warnings
        if more.data:
            summary = f"kernel {kernel.version}: {more.facts}"
            case.tree.insert(path, more.place, more.data, fix=FIX.name, summary=summary)
    return warnings


def _modules_of(case: Case, kernel: Kernel) -> tuple[modules.Dependencies, frozenset[str]]:
    """The kernel's modules and its built-in ones; virtio is in one of them."""
    tree = case.tree
    dependencies = modules.parse(tree.text_or_empty(f"{kernel.modules}/modules.dep"), kernel.modules)
    builtin = modules.builtins(tree.text_or_empty(f"{kernel.modules}/modules.builtin"))
    for name in ("virtio_pci", "virtio_blk"):
        if name not in dependencies.paths and name not in builtin:
            raise MigrationFailed(
                "virtio-missing",
                f"the guest's kernel {kernel.version} has no module {name}",
                hint="Install a kernel with virtio drivers in the guest, then convert again",
            )
    return dependencies, builtin


@dataclass(frozen=True)
class More:
    """The addition that an initramfs needs: bytes to insert at the byte `place`, and their description.

    No bytes: it is complete.
    """

    data: bytes = b""
    place: int = 0
    facts: str = ""
    warnings: tuple[str, ...] = ()


def addition(case: Case, kernel: Kernel, file: BinaryIO, path: str) -> More:
    """The addition that the initramfs in `file` needs. `path` is its name in messages.

    Raises MigrationFailed (`virtio-missing`, `module-missing`, `initrd-damaged`).
    """
    tree = case.tree
    dependencies, builtin = _modules_of(case, kernel)
    if initrd.is_mended(file):
        return More()
    before = initrd.read(file, _is_baked)
    warnings = _unreached(path, before)
    folder, present = _modules_in(before.contents, kernel.version)
    settings = _mended_settings(case, path, before.contents.files)
    stale = [name for name, data in before.contents.files.items() if lvm_devices.is_stale(f"/{name}", _text(data))]
    rules = nic_names.early_rules(case)
    needed = (*NEEDED, "virtio_net") if case.survey.early_network else NEEDED
    added = []
    if modules.missing(dependencies, needed, {*present, *builtin}):
        added = modules.missing(dependencies, ADDED, {*present, *builtin})
    if not added and not settings and not stale and not rules:
        return More(warnings=warnings)
    archive = _Addition(before.contents)
    if added:
        _add_modules(archive, tree, kernel, folder, added, present, dependencies)
    for name, data in settings.items():
        archive.file(name, data)
    if rules:
        archive.file(nic_names.RULES.lstrip("/"), rules.encode())
    for name in stale:
        archive.symlink(name, NOWHERE)
    facts = [f"{len(added)} modules ({', '.join(added)})"] if added else []
    facts += [f"{name} mended" for name in settings]
    facts += [f"{name} removed" for name in stale]
    facts += ["network cards have their names"] if rules else []
    return More(initrd.follow_up(before, archive.finish()), before.place, "; ".join(facts), warnings)


def _unreached(path: str, before: initrd.Initrd) -> tuple[str, ...]:
    if not before.ignored:
        return ()
    return (f"{path}: the kernel unpacks its first {before.place} bytes only, now as before: {before.ignored}",)


def _modules_in(contents: cpio.Contents, version: str) -> tuple[str, dict[str, str]]:
    """The initramfs's own module folder, and its modules: name to file relative to that folder.

    `lib` may be a symbolic link in the initramfs, which a directory entry of ours would replace: no entry for `lib`
    is ever written. If there are no modules, the folder is below lib/modules.
    """
    for parent in ("usr/lib/modules", "lib/modules"):
        folder = f"{parent}/{version}"
        inside = [name.removeprefix(folder + "/") for name in contents.names if name.startswith(folder + "/")]
        if inside:
            return folder, {modules.module_name(path): path for path in sorted(inside) if modules.is_module(path)}
    return f"lib/modules/{version}", {}


def _is_baked(name: str) -> bool:
    return baked.mender(name) is not None or lvm_devices.is_devices_file(f"/{name}")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _mended_settings(case: Case, path: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    mended = {}
    for name, data in files.items():
        mend = baked.mender(name)
        after = mend(case, _text(data), f"{path}:{name}") if mend else None
        if after and after.summary:
            mended[name] = after.text.encode(errors="surrogateescape")
    return mended


def _add_modules(
    archive: _Addition,
    tree: GuestTree,
    kernel: Kernel,
    folder: str,
    added: list[str],
    present: Mapping[str, str],
    dependencies: modules.Dependencies,
) -> None:
    after = dict(present)
    for name in added:
        path = dependencies.paths[name]
        file = posixpath.join(kernel.modules, path)
        if not tree.is_file(file):
            raise MigrationFailed(
                "module-missing",
                f"the guest's {file} is missing, though modules.dep names it",
                hint=f"Reinstall the kernel package {kernel.version} in the guest, then convert again",
            )
        after[name] = path
        archive.file(f"{folder}/{path}", tree.read_bytes(file))
    for name in INDEXES:
        path = f"{kernel.modules}/{name}"
        if tree.is_file(path):
            archive.file(f"{folder}/{name}", tree.read_bytes(path))
    text, binary = modules.index(dependencies, after)
    archive.file(f"{folder}/modules.dep", text)
    archive.file(f"{folder}/modules.dep.bin", binary)


class _Addition:
    """Our archive: it gets the folders that its files need, except those that the initramfs already has."""

    def __init__(self, before: cpio.Contents) -> None:
        self._archive = cpio.Archive()
        self._known = {*before.names, "lib", "usr", "usr/lib"}
        self._archive.file(initrd.MARKER_FILE, b"")

    def file(self, path: str, data: bytes) -> None:
        for folder in cpio.parents(path, self._known):
            self._archive.folder(folder)
            self._known.add(folder)
        self._archive.file(path, data)

    def symlink(self, path: str, target: str) -> None:
        """Replace a file that the initramfs has."""
        self._archive.symlink(path, target)

    def finish(self) -> bytes:
        return self._archive.finish()


FIX = Fix("initramfs", required=True, wanted=when_regenerating, apply=apply)
