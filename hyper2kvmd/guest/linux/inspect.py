"""What a disk holds: which volume is the root of which operating system, and what boots it.

Owns the search for the root and the facts read from it. Nothing of the guest is run; the architecture is read
from an ELF header, the rest from text. Sources: os-release(5), hostname(5), file-hierarchy(7), elf(5).
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.files import locked
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.linux import pe
from hyper2kvmd.guest.linux.entries import BOOTS, Entry, entries
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.volumes.superblock import LINUX_FILE_SYSTEMS

SUBVOLUMES = ("@", "root", "@rootfs", "@root", "rootfs")
"""Where distributions put their root when the default subvolume is not it."""
FOREIGN = ("zfs_member", "ufs", "hfsplus", "apfs", "reiserfs", "jfs", "f2fs", "bcache", "VMFS_volume_member")
FOREIGN_TYPES = {
    "a5": "FreeBSD",
    "a6": "OpenBSD",
    "a9": "NetBSD",
    "af": "macOS",
    "be": "Solaris",
    "bf": "Solaris",
    "fb": "VMware ESXi",
    "516e7cb4-6ecf-11d6-8ff8-00022d09712b": "FreeBSD",
    "516e7cb6-6ecf-11d6-8ff8-00022d09712b": "FreeBSD",
    "516e7cba-6ecf-11d6-8ff8-00022d09712b": "FreeBSD",
    "83bd6b9d-7f41-11dc-be0b-001560b84f0f": "FreeBSD",
    "824cc7a0-36a8-11e3-890a-952519ad3f61": "OpenBSD",
    "49f48d5a-b10e-11dc-b99b-0019d1879648": "NetBSD",
    "48465300-0000-11aa-aa11-00306543ecac": "macOS",
    "7c3457ef-0000-11aa-aa11-00306543ecac": "macOS",
    "6a82cb45-1dd2-11b2-99a6-080020736631": "Solaris",
    "6a85cf4d-1dd2-11b2-99a6-080020736631": "Solaris",
    "aa31e02a-400f-11db-9590-000c2911d1b8": "VMware ESXi",
}
"""Partition types of systems that are not repaired. Solaris shares 6a898cc3... with every ZFS."""
RELEASE_FILES = (
    ("/etc/oracle-release", "ol"),
    ("/etc/centos-release", "centos"),
    ("/etc/redhat-release", "rhel"),
    ("/etc/SuSE-release", "sles"),
    ("/etc/alpine-release", "alpine"),
    ("/etc/gentoo-release", "gentoo"),
    ("/etc/slackware-version", "slackware"),
    ("/etc/arch-release", "arch"),
    ("/etc/debian_version", "debian"),
)
"""What told a system before os-release, with the ID that os-release would have. Clones have their maker's file too."""
BARE_VERSION = {"alpine": "Alpine Linux ", "debian": "Debian "}
NTFS_LOADERS = ("bootmgr", "ntldr")
REGISTRY = ("windows", "system32", "config", "system")
HIBERNATED = "swsuspend"
ELF_PLACES = ("/bin/sh", "/bin/bash", "/sbin/init", "/bin/ls", "/lib64/ld-linux-x86-64.so.2")
MACHINES = {3: "i686", 21: "ppc64", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
UNIFIED_LIMIT = 512 << 20
"""Bytes of a unified kernel image."""
MODULE_FOLDERS = ("/lib/modules", "/usr/lib/modules")


@dataclass(frozen=True)
class Found:
    """Where the guest's root is. `volume` is None unless the family is linux; `subvolume` is a folder of it.

    A `locked` guest has its root in a LUKS container that no key opens: `volume` is the inside of one, which nobody
    can read, and `boot` the volume with its kernels, if that is outside.
    """

    family: Literal["linux", "locked", "windows", "none"]
    volume: Volume | None = None
    subvolume: str = ""
    boot: Volume | None = None
    troubles: tuple[str, ...] = ()
    """Volumes that could not be looked into."""


@dataclass(frozen=True)
class Kernel:
    version: str
    modules: str
    """Its module folder."""
    image: str | None
    initrds: tuple[str, ...]
    """Each file that a boot loader may pass to it: a copy on the EFI partition is as good as the one in /boot."""


@dataclass(frozen=True)
class Unified:
    """A kernel, its initramfs and its command line in one EFI program."""

    path: str
    version: str
    """Empty when it does not say it."""


@dataclass(frozen=True)
class System:
    """A Linux guest, as its files describe it."""

    os_id: str
    os_name: str
    hostname: str
    architecture: str
    kernels: tuple[Kernel, ...]
    unified: tuple[Unified, ...]
    boot_loaders: tuple[str, ...]
    selinux: bool


# ---------------------------------------------------------------- the root


def find_root(access: Access, layout: Layout) -> Found:
    """Look into every volume that could hold a Linux root, read-only.

    Raises MigrationFailed: `guest-ambiguous` for several, `guest-root-missing` when none can be opened,
    `guest-not-linux`, `guest-hibernated`.
    """
    seen = tuple(describe(volume) for volume in layout.volumes)
    _refuse_hibernated(layout)
    looked = _find_roots(access, layout)
    roots, failures, troubles = looked.roots, looked.failures, looked.troubles
    if len(roots) > 1:
        names = ", ".join(describe(volume) + (f" in {folder}" if folder else "") for volume, folder in roots)
        raise MigrationFailed(
            "guest-ambiguous",
            f"the disks hold several Linux systems: {names}",
            hint="leave one system on them: it is unclear which one to repair",
        )
    if roots:
        closed = tuple(f"{printable(volume.name)}: {volume.obstacle}" for volume in locked.closed(layout))
        return Found("linux", roots[0][0], roots[0][1], troubles=(*troubles, *closed))
    if failures:
        raise failures[0]
    if _holds_windows(access, layout):
        return Found("windows")
    if containers := locked.closed(layout):
        return Found("locked", containers[0], boot=locked.find_boot(access, layout))
    _refuse_hidden(layout, seen)
    _refuse_foreign(layout, seen)
    return Found("none")


@dataclass(frozen=True)
class _Roots:
    roots: tuple[tuple[Volume, str], ...]
    failures: tuple[MigrationFailed, ...]
    troubles: tuple[str, ...]


def _find_roots(access: Access, layout: Layout) -> _Roots:
    roots: list[tuple[Volume, str]] = []
    failures: list[MigrationFailed] = []
    troubles = []
    for volume in layout.volumes:
        if volume.content not in LINUX_FILE_SYSTEMS:
            continue
        if volume.obstacle or not volume.stretches:
            troubles.append(f"{describe(volume)}: {volume.obstacle or 'cannot be addressed'}")
            continue
        try:
            with access.mount(volume, read_only=True) as handle:
                roots += [(volume, subvolume) for subvolume in _roots_in(ConfinedRoot(handle), volume)]
        except MigrationFailed as failure:
            if failure.kind is Kind.RETRY:
                raise
            failures.append(failure)
            troubles.append(f"{describe(volume)}: {failure.message}")
    return _Roots(tuple(roots), tuple(failures), tuple(troubles))


def _roots_in(root: ConfinedRoot, volume: Volume) -> list[str]:
    """Folders of a mounted volume that are a Linux root; "" is its top, which hides the others."""
    if is_root(GuestTree({"/": root})):
        return [""]
    found = []
    for name in SUBVOLUMES if volume.content == "btrfs" else ():
        if root.exists(name):
            with root.folder(name) as folder:
                found += [name] if is_root(GuestTree({"/": folder})) else []
    return found


def is_root(tree: GuestTree) -> bool:
    described = any(tree.is_file(path) for path in ("/etc/os-release", "/usr/lib/os-release", "/etc/fstab"))
    return described and tree.is_dir("/etc") and (tree.is_dir("/usr") or tree.is_dir("/lib"))


def _refuse_hibernated(layout: Layout) -> None:
    """The memory image in the swap believes in file systems as they were: edits below it would destroy them."""
    for volume in layout.volumes:
        if volume.content == HIBERNATED:
            raise MigrationFailed(
                "guest-hibernated",
                f"the guest is hibernated: {volume.name} holds the image of its memory",
                hint="start the guest on VMware, shut it down cleanly, export it again",
            )


def _holds_windows(access: Access, layout: Layout) -> bool:
    """A boot manager or a registry on NTFS; where the host cannot mount that, NTFS or BitLocker itself."""
    if any(volume.content == "BitLocker" for volume in layout.volumes):
        return True
    for volume in layout.volumes:
        if volume.content != "ntfs":
            continue
        try:
            with access.mount(volume, read_only=True) as handle:
                if is_windows(GuestTree({"/": ConfinedRoot(handle)})):
                    return True
        except MigrationFailed:
            return True
    return False


def is_windows(tree: GuestTree) -> bool:
    """NTFS keeps the case of names and Windows minds none."""
    top = {name.lower() for name in tree.listdir("/")}
    place = "/"
    for part in REGISTRY:
        name = next((name for name in tree.listdir(place) if name.lower() == part), None)
        if name is None:
            return not top.isdisjoint(NTFS_LOADERS)
        place = posixpath.join(place, name)
    return True


def _refuse_foreign(layout: Layout, seen: tuple[str, ...]) -> None:
    for volume in layout.volumes:
        if system := FOREIGN_TYPES.get(volume.parttype or ""):
            raise MigrationFailed(
                "guest-not-linux",
                f"{volume.name} is a partition of {system}; seen: {'; '.join(seen)}",
                hint="only Linux guests are repaired: install virtio drivers in this one, and migrate it by hand",
            )


def _refuse_hidden(layout: Layout, seen: tuple[str, ...]) -> None:
    for volume in layout.volumes:
        if volume.content in FOREIGN:
            reason = f"{volume.name} holds {volume.content}"
        elif volume.obstacle:
            reason = f"{volume.name}: {volume.obstacle}"
        else:
            continue
        raise MigrationFailed(
            "guest-root-missing",
            f"no Linux root that can be opened: {reason}; seen: {'; '.join(seen)}",
            hint="prepare the guest by hand (virtio in its initramfs, stable names in fstab) and boot it from the "
            "source's own converted image, or move its root to a volume that can be opened",
        )


def describe(volume: Volume) -> str:
    return printable(f"{volume.name} ({volume.content}{', UUID ' + volume.uuid if volume.uuid else ''})")


# ---------------------------------------------------------------- the system


def inspect_system(tree: GuestTree) -> System:
    """Facts about the Linux guest whose files `tree` is."""
    release = _os_release(tree)
    config = tree.text_or_empty("/etc/selinux/config")
    return System(
        os_id=release.get("ID") or "linux",
        os_name=release.get("PRETTY_NAME") or f"{release.get('NAME') or 'Linux'} {release.get('VERSION', '')}".strip(),
        hostname=_hostname(tree),
        architecture=_architecture(tree),
        kernels=_kernels(tree),
        unified=tuple(_unified(tree)),
        boot_loaders=_boot_loaders(tree),
        selinux=re.search(r"^\s*SELINUX=(enforcing|permissive)", config, re.MULTILINE) is not None,
    )


def _os_release(tree: GuestTree) -> dict[str, str]:
    text = tree.text_or_empty("/etc/os-release") or tree.text_or_empty("/usr/lib/os-release")
    values = {}
    for line in text.split("\n"):
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            values[key] = printable(value.strip().strip("\"'"))[:200]
    if values:
        return values
    for path, name in RELEASE_FILES:
        if first := tree.text_or_empty(path).split("\n")[0].strip():
            return {"ID": _named_in(first, name), "PRETTY_NAME": printable(BARE_VERSION.get(name, "") + first)[:200]}
    return _lsb_release(tree)


def _named_in(first: str, name: str) -> str:
    """Scientific Linux, Fedora and old CentOS fill redhat-release, and say so in it."""
    called = {"CentOS": "centos", "Fedora": "fedora", "Scientific": "scientific", "openSUSE": "opensuse"}
    return next((os_id for word, os_id in called.items() if first.startswith(word)), name)


def _lsb_release(tree: GuestTree) -> dict[str, str]:
    values = dict(re.findall(r"^DISTRIB_(ID|DESCRIPTION)=\"?([^\"\n]+)", tree.text_or_empty("/etc/lsb-release"), re.M))
    if "ID" not in values:
        return {}
    return {"ID": printable(values["ID"]).lower()[:200], "PRETTY_NAME": printable(values.get("DESCRIPTION", ""))[:200]}


def _hostname(tree: GuestTree) -> str:
    for path in ("/etc/hostname", "/etc/HOSTNAME"):
        for line in tree.text_or_empty(path).split("\n"):
            if line.strip() and not line.startswith("#"):
                return printable(line.strip())[:253]
    match = re.search(r"^HOSTNAME=[\"']?([^\s\"']+)", tree.text_or_empty("/etc/sysconfig/network"), re.MULTILINE)
    return printable(match[1])[:253] if match else ""


def _architecture(tree: GuestTree) -> str:
    for path in ELF_PLACES:
        if not tree.is_file(path):
            continue
        with tree.open(path) as stream:
            header = stream.read(20)
        if len(header) == 20 and header.startswith(b"\x7fELF"):
            order = ">" if header[5] == 2 else "<"
            (machine,) = struct.unpack_from(order + "H", header, 18)
            return MACHINES.get(machine, f"ELF machine {machine}")
    return ""


def _kernels(tree: GuestTree) -> tuple[Kernel, ...]:
    folders: dict[str, str] = {}
    for parent in MODULE_FOLDERS:
        for version in tree.listdir(parent):
            folder = posixpath.join(parent, version)
            if tree.is_file(f"{folder}/modules.dep") or tree.is_dir(f"{folder}/kernel"):
                folders.setdefault(version, tree.canonical(folder))
    told = tuple(entries(tree))
    return tuple(
        Kernel(
            version,
            folder,
            next(iter(_files(tree, _image_names(tree, version, folder))), None),
            _files(tree, [*_initrd_names(tree, version, folder), *_named_by(told, version)]),
        )
        for version, folder in sorted(folders.items(), key=lambda item: _version_key(item[0]))
    )


def _image_names(tree: GuestTree, version: str, folder: str) -> list[str]:
    names = [
        f"/boot/vmlinuz-{version}",
        f"/boot/vmlinux-{version}",
        f"/boot/Image-{version}",
        f"/boot/kernel-{version}",
    ]
    names += [f"/boot/bzImage-{version}", *_entry_files(tree, version, "linux")]
    for flavour in _flavours(tree, version, folder):
        names += [f"/boot/vmlinuz-{flavour}"]
    return names


def _initrd_names(tree: GuestTree, version: str, folder: str) -> list[str]:
    names = [f"/boot/initrd.img-{version}", f"/boot/initramfs-{version}.img", f"/boot/initrd-{version}"]
    names += [f"/boot/initrd-{version}.img", *_entry_files(tree, version, "initrd")]
    for flavour in _flavours(tree, version, folder):
        names += [f"/boot/initramfs-{flavour}.img", f"/boot/initramfs-{flavour}"]
    return names


def _flavours(tree: GuestTree, version: str, folder: str) -> list[str]:
    """Arch names a kernel's files by package (`linux-lts`), Alpine by the end of the version (`lts`)."""
    package = tree.text_or_empty(f"{folder}/pkgbase").strip()
    names = [package, version.rpartition("-")[2]]
    return [name for name in names if re.fullmatch(r"[a-z][a-z0-9-]*", name)]


def _entry_files(tree: GuestTree, version: str, name: str) -> list[str]:
    """kernel-install's own layout: <boot>/<machine-id or token>/<version>/initrd."""
    found = []
    for boot in BOOTS:
        for folder in tree.listdir(boot):
            place = f"{boot}/{folder}/{version}"
            found += [f"{place}/{file}" for file in tree.listdir(place) if file.startswith(name)]
    return found


def _unified(tree: GuestTree) -> Iterator[Unified]:
    """The oldest first. Source: the Boot Loader Specification, type 2."""
    paths = {tree.canonical(path): None for boot in BOOTS for path in tree.glob(f"{boot}/EFI/Linux/*.efi")}
    found = []
    for path in paths:
        program = pe.parse(tree.read_bytes(path, UNIFIED_LIMIT)) if tree.is_file(path) else None
        if program is not None and program.content(".linux") is not None:
            version = (program.content(".uname") or b"").rstrip(b"\0").decode(errors="replace").strip()
            found.append(Unified(path, version))
    yield from sorted(found, key=lambda image: _version_key(image.version))


def _named_by(told: tuple[Entry, ...], version: str) -> list[str]:
    """The last initrd of an entry is the initramfs, those before it are microcode and the like."""
    return [entry.initrds[-1] for entry in told if entry.initrds and entry.is_of(version)]


def _files(tree: GuestTree, names: list[str]) -> tuple[str, ...]:
    """Regular files among them, each once."""
    return tuple(dict.fromkeys(tree.canonical(name) for name in names if tree.is_file(name)))


def _version_key(version: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|[a-z]+", version)]


def _boot_loaders(tree: GuestTree) -> tuple[str, ...]:
    marks = {
        "grub2": ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/*/grub.cfg", "/efi/EFI/*/grub.cfg"),
        "grub-legacy": ("/boot/grub/menu.lst", "/boot/grub/grub.conf"),
        "systemd-boot": tuple(
            f"{boot}/{mark}"
            for boot in ("/boot", "/efi", "/boot/efi")
            for mark in ("EFI/systemd/*.efi", "loader/loader.conf")
        ),
        "extlinux": ("/boot/extlinux/extlinux.conf", "/boot/extlinux.conf", "/boot/syslinux/syslinux.cfg"),
    }
    return tuple(name for name, patterns in marks.items() if any(tree.glob(pattern) for pattern in patterns))
