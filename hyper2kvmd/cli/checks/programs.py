"""The programs, libraries and firmware that stages start or load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hyper2kvmd.cli.checks.check import Check, Host, Level, Line, error, from_failure, ok, warning
from hyper2kvmd.errors import BrokenInstallation, Failure
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.guest.windows.drivers.vetting import vet
from hyper2kvmd.host import run
from hyper2kvmd.host.packages import DistroPackage
from hyper2kvmd.host.tool_version import tool_version
from hyper2kvmd.proof.firmware import uefi_firmware
from hyper2kvmd.volumes.ntfs.tool import check_library

TITLE = "Programs"
RELEASE = re.compile(r"virtio-win-(\d[\d.]*(-\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class NeededProgram:
    name: str
    package: DistroPackage
    purpose: str
    missing: Level = "warning"


PROGRAMS = (
    NeededProgram("qemu-img", DistroPackage("qemu-utils", "qemu-img"), "every migration", "error"),
    NeededProgram("qemu-storage-daemon", DistroPackage("qemu-system-common", "qemu-img"), "every migration", "error"),
    NeededProgram("nbdfuse", DistroPackage("libnbd-bin", "nbdfuse"), "repairs on a kernel without NBD"),
    NeededProgram("fusermount3", DistroPackage("fuse3", "fuse3"), "repairs on a kernel without NBD"),
    NeededProgram("qemu-system-x86_64", DistroPackage("qemu-system-x86", "qemu-kvm"), "verify: boot"),
    NeededProgram("virsh", DistroPackage("libvirt-clients", "libvirt-client"), "libvirt_import"),
    NeededProgram("swtpm", DistroPackage("swtpm", "swtpm"), "the TPM of new machines"),
    NeededProgram("swtpm_setup", DistroPackage("swtpm-tools", "swtpm-tools"), "the TPM of new machines"),
)
FIRMWARE = DistroPackage("ovmf", "edk2-ovmf")


def checks() -> Iterator[Check]:
    for program in PROGRAMS:
        yield Check(TITLE, program.name, partial(_program, program))
    yield Check(TITLE, "libntfs-3g", _library)
    yield Check(TITLE, "UEFI firmware", _firmware)
    yield Check(TITLE, "virtio_win", _virtio_win)


def _program(program: NeededProgram, _host: Host) -> Iterator[Line]:
    try:
        path = run.tool(program.name)
    except BrokenInstallation:
        remedy = f"Install it: {program.package.install_line}"
        fact = f"not installed; needed for {program.purpose}"
        yield Line(level=program.missing, object=program.name, fact=fact, remedy=remedy)
        return
    yield ok(program.name, f"{tool_version(path) or 'installed'} ({path})")


def _library(_host: Host) -> Iterator[Line]:
    try:
        check_library()
    except Failure as failure:
        yield warning("libntfs-3g", f"{failure.message}; needed for Windows guests", failure.hint)
    else:
        yield ok("libntfs-3g", "can be used")


def _firmware(_host: Host) -> Iterator[Line]:
    for name, secure in (("UEFI firmware", False), ("UEFI firmware with Secure Boot", True)):
        try:
            yield ok(name, str(uefi_firmware(secure_boot=secure)[0]))
        except BrokenInstallation as failure:
            fact = f"{failure.message}; needed for verify: boot"
            yield warning(name, fact, f"Install it: {FIRMWARE.install_line}")


def _virtio_win(host: Host) -> Iterator[Line]:
    path = host.config.virtio_win
    if path is None:
        remedy = "Set virtio_win in the configuration to an ISO of virtio-win, or name one in the migration"
        yield warning("virtio_win", "not configured; Windows guests get no drivers by default", remedy)
        return
    thing = f"virtio_win {path}"
    try:
        with DriverSource.open(path) as source:
            concerns = vet(source)
    except Failure as failure:
        yield from from_failure(thing, failure)
        return
    release = RELEASE.search(str(path.resolve()))
    yield ok(thing, f"readable, release {release[1]}" if release else "readable; its name shows no release")
    for concern in concerns:
        if concern.level == "warning":
            yield warning(thing, concern.message, concern.hint)


def sudo_is_installed() -> bool:
    try:
        return Path(run.tool("sudo")).exists()
    except BrokenInstallation:
        return False


def no_sudo() -> Line:
    return error("sudo", "not installed; the root helper is started by it", f"Install it: {_SUDO.install_line}")


_SUDO = DistroPackage("sudo", "sudo")
