"""EFI/BOOT on the EFI system partition: the loader that a firmware without boot entries starts.

The guest's boot entries were in VMware's firmware variables and are lost. If EFI/BOOT has no loader, the guest's own
is copied there; GRUB and systemd-boot find their files from any folder. shim is copied with its fallback, which finds
the loader's own folder by BOOT*.CSV and renews the entries, or else with GRUB and the key manager.
Sources: UEFI specification 2.10, 3.5.1.1; shim's README.fallback; bootctl(1).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux import pe
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, unless_no_grub

FALLBACK_FOLDER = "BOOT"
NOT_LINUX = ("microsoft", "apple", "tools")
LOADERS = ("shim*.efi", "grub*.efi", "systemd-boot*.efi")
"""In the order of preference: a loader comes before those that it verifies and starts."""
HEAD = 4096


@dataclass(frozen=True)
class Loader:
    path: str
    suffix: str
    """Of its architecture, as in BOOTX64.EFI."""


def apply(case: Case) -> list[str]:
    """Raises MigrationFailed when a UEFI firmware would find nothing to start."""
    if case.esp is None or case.firmware != "uefi":
        return []
    tree, efi = case.tree, posixpath.join(case.esp, "EFI")
    folder = posixpath.join(efi, FALLBACK_FOLDER)
    ready = {suffix for suffix in pe.SUFFIXES.values() if tree.is_file(f"{folder}/BOOT{suffix.upper()}.EFI")}
    loaders = sorted(_loaders(tree, efi), key=lambda loader: _rank(case, loader))
    warnings = []
    for suffix in {loader.suffix: None for loader in loaders if loader.suffix not in ready}:
        candidates = [loader for loader in loaders if loader.suffix == suffix]
        _install(tree, efi, candidates[0])
        folders = {posixpath.dirname(loader.path): None for loader in candidates}
        if len(folders) > 1:
            names = ", ".join(map(posixpath.basename, folders))
            warnings.append(f"the EFI partition has loaders in {names}; without boot entries the first one is started")
    if not ready and not loaders:
        raise MigrationFailed(
            "efi-loader-missing",
            f"a UEFI firmware finds no boot loader in {efi}, and boot entries stay behind with the old firmware",
            hint="Set uefi: false if the guest boots with BIOS, or install its boot loader to the removable media path "
            "(grub-install --removable, bootctl install) and convert again",
        )
    return warnings


def _loaders(tree: GuestTree, efi: str) -> Iterator[Loader]:
    for folder in tree.listdir(efi):
        if folder.upper() == FALLBACK_FOLDER or folder.lower() in NOT_LINUX:
            continue
        for name in tree.listdir(f"{efi}/{folder}"):
            path = f"{efi}/{folder}/{name}"
            if any(fnmatchcase(name.lower(), pattern) for pattern in LOADERS) and tree.is_file(path):
                with tree.open(path) as file:
                    suffix = pe.suffix(file.read(HEAD))
                if suffix is not None:
                    yield Loader(path, suffix)


def _rank(case: Case, loader: Loader) -> tuple[bool, str, int, str]:
    """The distribution's own folder first, then the others by name; inside a folder, by preference."""
    folder, name = (part.lower() for part in posixpath.split(loader.path))
    vendor = posixpath.basename(folder)
    own = case.system.os_id.startswith(vendor) or (case.system.os_id == "rhel" and vendor == "redhat")
    preference = next(rank for rank, pattern in enumerate(LOADERS) if fnmatchcase(name, pattern))
    return not own, vendor, preference, name


def _install(tree: GuestTree, efi: str, loader: Loader) -> None:
    source = posixpath.dirname(loader.path)
    target = posixpath.join(efi, FALLBACK_FOLDER)
    wanted = {loader.path: f"BOOT{loader.suffix.upper()}.EFI"}
    if posixpath.basename(loader.path).lower().startswith("shim"):
        wanted |= {f"{source}/{name}": name for name in _companions(tree, source, loader.suffix)}
    for path, name in wanted.items():
        place = posixpath.join(target, name)
        if not tree.is_file(place):
            tree.write_bytes(place, tree.read_bytes(path), fix=FIX.name, summary=f"a copy of {tree.canonical(path)}")


def _companions(tree: GuestTree, source: str, suffix: str) -> list[str]:
    """The files that shim loads from its own folder."""
    fallback = f"fb{suffix}.efi"
    if tree.is_file(f"{source}/{fallback}") and tree.is_file(f"{source}/BOOT{suffix.upper()}.CSV"):
        return [fallback]
    grub, keys = f"grub{suffix}.efi", f"mm{suffix}.efi"
    if not tree.is_file(f"{source}/{grub}"):
        raise MigrationFailed(
            "efi-shim-incomplete",
            f"shim in {source} has neither {grub} nor {fallback} and BOOT{suffix.upper()}.CSV beside it",
            hint="Reinstall the guest's boot loader (grub-install), then convert again",
        )
    return [grub, *([keys] if tree.is_file(f"{source}/{keys}") else [])]


FIX = Fix("efi-fallback", required=True, wanted=unless_no_grub, apply=apply)
