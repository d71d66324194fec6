"""The root helper: installed, reachable by the service, and what the kernel offers to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.cli.checks import programs
from hyper2kvmd.cli.checks.asking import ask, ask_as_service
from hyper2kvmd.cli.checks.check import Check, Host, Line, as_operator, error, from_failure, not_checked, ok, warning
from hyper2kvmd.errors import BrokenInstallation, Failure
from hyper2kvmd.guest.mounts import rootside
from hyper2kvmd.guest.mounts.channel import HELPER_SOURCE, SOCKET_LINE
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS, check_fuse
from hyper2kvmd.guest.mounts.rootside import Probed
from hyper2kvmd.host import run
from hyper2kvmd.installed import SERVICE_USER
from hyper2kvmd.model.orders import HelperCall

TITLE = "Root helper"
SUDOERS = Path("/etc/sudoers.d/hyper2kvm")
STALL_SECONDS = 5.0
TARGETS = {"linear": "LVM", "striped": "striped LVM", "mirror": "mirrored LVM", "crypt": "LUKS"}
"""Targets of device-mapper, and the volumes of guests that need them."""


def checks() -> Iterator[Check]:
    yield Check(TITLE, "root helper", _installed)
    yield Check(TITLE, "request to the root helper", _answer)


def _installed(host: Host) -> Iterator[Line]:
    call = host.config.helper
    if isinstance(call, Path):
        yield _socket(call)
        return
    program = next((Path(word) for word in call if word.startswith("/")), None)
    if Path(call[0]).name == "sudo" and not programs.sudo_is_installed():
        yield programs.no_sudo()
    if program is not None:
        found = _file(program)
        optional = host.service is None and host.me.uid == 0  # then root's runs use the file of this installation
        yield found.with_changes(level="warning") if optional and found.level == "error" else found
    if program is not None and Path(call[0]).name == "sudo":
        yield from _sudoers(host)


def _socket(path: Path) -> Line:
    thing = f"socket {path}"
    try:
        facts = path.stat()
    except FileNotFoundError:
        return error(thing, "missing", f"Start it: `{SOCKET_LINE}`")
    if facts.st_uid != 0 or facts.st_mode & stat.S_IWOTH:
        return error(thing, f"not only for its group: mode {_mode(facts)}", f"Start it again: `{SOCKET_LINE}`")
    return ok(thing, f"belongs to root, mode {_mode(facts)}")


def _file(program: Path) -> Line:
    install = f"Install it: `install -D -o root -g root -m 0755 {HELPER_SOURCE} {program}`"
    try:
        facts = program.stat()
    except FileNotFoundError:
        return error(str(program), "not installed", install)
    if facts.st_uid != 0 or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return error(str(program), f"uid {facts.st_uid}, mode {_mode(facts)}: others than root can change it", install)
    if program.read_bytes() != HELPER_SOURCE.read_bytes():
        return warning(str(program), "differs from the helper of this version", install)
    return ok(str(program), f"belongs to root, mode {_mode(facts)}, of this version")


def _sudoers(host: Host) -> Iterator[Line]:
    """The file of the package; whether its line is in force shows in the request to the helper."""
    if host.me.uid != 0:
        yield as_operator(str(SUDOERS))
        return
    install = f"Install the package again, or sudoers.d/hyper2kvm as {SUDOERS} (root:root, mode 0440)"
    if not SUDOERS.exists():
        fact = "missing; the line may be in another file" if host.service else "missing; only the service needs it"
        yield warning(str(SUDOERS), fact, install)
        return
    said = run.run(["visudo", "-c", "-f", str(SUDOERS)], stall_seconds=STALL_SECONDS, check=False)
    if said.returncode:
        yield error(str(SUDOERS), " / ".join((said.stderr or said.stdout).split("\n")).strip(" /"), install)
    else:
        yield ok(str(SUDOERS), f"valid, mode {_mode(SUDOERS.stat())}")


def _mode(facts: os.stat_result) -> str:
    return f"{stat.S_IMODE(facts.st_mode):04o}"


def _answer(host: Host) -> Iterator[Line]:
    thing, call = "request to the root helper", host.config.helper
    if host.me.uid != 0 and not host.as_service:
        remedy = f"Run `sudo -u {SERVICE_USER} h2kvmctl doctor`: only that user may use the helper"
        yield not_checked(thing, f"it serves {SERVICE_USER} only", remedy)
        return
    try:
        kernel = _ask(host, call)
    except Failure as failure:
        yield from from_failure(thing, failure)
        return
    yield ok(thing, f"answered to {SERVICE_USER if host.service else host.me.name}")
    yield from _kernel(kernel)


def _ask(host: Host, call: HelperCall) -> Probed:
    if host.me.uid != 0 or isinstance(call, Path):
        return ask(call)
    return ask_as_service(call) if host.service else ask(rootside.default_helper())


def _kernel(kernel: Probed) -> Iterator[Line]:
    if kernel.nbd:
        yield ok("kernel: NBD", "available")
    else:
        try:
            check_fuse(kernel)
            yield warning("kernel: NBD", "missing; slower FUSE and loop devices are used", "Run `modprobe nbd`")
        except BrokenInstallation as failure:
            yield from from_failure("kernel: NBD", failure)
    yield ok("kernel: loop", "available") if kernel.loop else warning("kernel: loop", "missing", "Run `modprobe loop`")
    for name in sorted(set(FILE_SYSTEMS.values())):
        if name in kernel.fstypes:
            yield ok(f"kernel: {name}", "available")
        else:
            yield warning(f"kernel: {name}", "missing; such guests are not repaired", f"Run `modprobe {name}`")
    for name, volumes in TARGETS.items():
        if name in kernel.dm:
            yield ok(f"kernel: device-mapper {name}", "available")
        else:
            remedy = f"Run `modprobe {'dm_mod' if name in ('linear', 'striped') else f'dm_{name}'}`"
            yield warning(f"kernel: device-mapper {name}", f"missing; needed for guests with {volumes}", remedy)
