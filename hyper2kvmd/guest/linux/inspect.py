"""Facts about a Linux guest: its release, its kernels, its boot loaders.

Nothing of the guest is run; the architecture is read from an ELF header, the rest from text. Sources: os-release(5),
hostname(5), file-hierarchy(7), elf(5).
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.linux import pe
from hyper2kvmd.guest.linux.entries import BOOTS, BootEntry, entries

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
"""Files that identified a system before os-release, with its os-release ID. Clones also have the original's file."""
BARE_VERSION = {"alpine": "Alpine Linux ", "debian": "Debian "}
ELF_PLACES = ("/bin/sh", "/bin/bash", "/sbin/init", "/bin/ls", "/lib64/ld-linux-x86-64.so.2")
MACHINES = {3: "i686", 21: "ppc64", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
UNIFIED_LIMIT = 512 << 20
"""Bytes of a unified kernel image."""
MODULE_FOLDERS = ("/lib/modules", "/usr/lib/modules")


@dataclass(frozen=True)
class Kernel:
    version: str
    modules: str
    """Its module folder."""
    image: str | None
    initrds: tuple[str, ...]
    """Each file that a boot loader may pass to it: a copy on the EFI partition counts like the one in /boot."""


@dataclass(frozen=True)
class Unified:
    """A kernel, its initramfs and its command line in one EFI program."""

    path: str
    version: str
    """Empty if the image does not contain it."""
    is_signed: bool
    """For Secure Boot; a repair of the image removes the signature."""


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


def inspect_system(tree: GuestTree) -> System:
    """Facts about the Linux guest with the files in `tree`."""
    release = _os_release(tree)
    config = tree.text_or_empty("/etc/selinux/config")
    return System(
        os_id=release.get("ID") or "linux",
        os_name=release.get("PRETTY_NAME") or f"{release.get('NAME') or 'Linux'} {release.get('VERSION', '')}".strip(),
        hostname=hostname_of(tree),
        architecture=_architecture(tree),
        kernels=_kernels(tree),
        unified=tuple(_unified(tree)),
        boot_loaders=_boot_loaders(tree),
        selinux=re.search(r"^[ \t]*SELINUX=(enforcing|permissive)", config, re.MULTILINE) is not None,
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
    """Scientific Linux, Fedora and old CentOS use redhat-release, with their own name in it."""
    called = {"CentOS": "centos", "Fedora": "fedora", "Scientific": "scientific", "openSUSE": "opensuse"}
    return next((os_id for word, os_id in called.items() if first.startswith(word)), name)


def _lsb_release(tree: GuestTree) -> dict[str, str]:
    values = dict(re.findall(r"^DISTRIB_(ID|DESCRIPTION)=\"?([^\"\n]+)", tree.text_or_empty("/etc/lsb-release"), re.M))
    if "ID" not in values:
        return {}
    return {"ID": printable(values["ID"]).lower()[:200], "PRETTY_NAME": printable(values.get("DESCRIPTION", ""))[:200]}


def hostname_of(tree: GuestTree) -> str:
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
            found.append(Unified(path, version, program.is_signed))
    yield from sorted(found, key=lambda image: _version_key(image.version))


def _named_by(told: tuple[BootEntry, ...], version: str) -> list[str]:
    """The last initrd of an entry is the initramfs, those before it are microcode and the like."""
    return [entry.initrds[-1] for entry in told if entry.initrds and entry.is_of(version)]


def _files(tree: GuestTree, names: list[str]) -> tuple[str, ...]:
    """Regular files among them, each once."""
    return tuple(dict.fromkeys(tree.canonical(name) for name in names if tree.is_file(name)))


def _version_key(version: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d{1,18}|[a-z]+", version)]


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
