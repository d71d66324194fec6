"""libvirt, the daemon and the clock."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime

import hyper2kvmd
from hyper2kvmd.cli.checks.check import Check, Host, Line, error, from_failure, not_checked, ok, warning
from hyper2kvmd.client import Client
from hyper2kvmd.errors import BrokenInstallation, Failure, InvalidInput
from hyper2kvmd.host import run
from hyper2kvmd.targets.libvirt.connection import Libvirt, reason_of

LIBVIRT = Libvirt("qemu:///system")
SYNCHRONIZED = ("timedatectl", "show", "--property=NTPSynchronized", "--value")
NETWORK = "default"
PATIENCE_SECONDS = 4.0


def checks() -> Iterator[Check]:
    yield Check("libvirt", f"libvirt {LIBVIRT.uri}", _libvirt)
    yield Check("Daemon", "daemon", _daemon)
    yield Check("Clock", "clock", _clock)


def _libvirt(_host: Host) -> Iterator[Line]:
    thing = f"libvirt {LIBVIRT.uri}"
    try:
        answer = LIBVIRT.virsh("version")
    except BrokenInstallation:
        yield not_checked(thing, "virsh is not installed")
        return
    except Failure as failure:
        yield from from_failure(thing, failure, "warning")
        return
    if answer.returncode:
        yield warning(thing, f"{reason_of(answer)}; needed for libvirt_import", "Install QEMU on this host")
        return
    yield ok(thing, ", ".join(re.findall(r"(?:Using library|Running hypervisor): (.+)", answer.stdout)))
    yield _network()


def _network() -> Line:
    thing = f"libvirt network {NETWORK}"
    answer = LIBVIRT.virsh("net-info", NETWORK)
    if answer.returncode:
        remedy = "Set libvirt_network or network_map in migrations to a network of `virsh net-list --all`"
        return warning(thing, reason_of(answer), remedy)
    if re.search(r"^Active:\s+yes", answer.stdout, re.MULTILINE):
        return ok(thing, "active")
    remedy = f"Run `virsh net-start {NETWORK}`, and `virsh net-autostart {NETWORK}`"
    return warning(thing, "not active", remedy)


def _daemon(host: Host) -> Iterator[Line]:
    socket = host.config.control_socket
    thing = f"daemon at {socket}"
    try:
        status = Client(socket, timeout_seconds=PATIENCE_SECONDS).status()
    except InvalidInput as refusal:
        yield not_checked(thing, refusal.message, refusal.hint)
        return
    except Failure as failure:
        yield from from_failure(thing, failure, "warning" if host.service is None else "error")
        return
    if status.version == hyper2kvmd.__version__:
        yield ok(thing, f"version {status.version}, {status.state}")
    else:
        fact = f"version {status.version}, and this command has version {hyper2kvmd.__version__}"
        yield error(thing, fact, "Run `systemctl restart hyper2kvmd`: unfinished jobs continue")


def _clock(_host: Host) -> Iterator[Line]:
    now = datetime.now().astimezone()
    zone = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2] or now.tzname() or "unknown"
    yield ok("clock", f"{now:%Y-%m-%d %H:%M:%S %z}, time zone {zone}")
    try:
        said = run.run(SYNCHRONIZED, stall_seconds=PATIENCE_SECONDS, check=False)
    except Failure:
        yield not_checked("clock synchronization", "timedatectl cannot be used")
        return
    if said.stdout.strip() == "yes":
        yield ok("clock synchronization", "synchronized")
    elif said.stdout.strip() == "no":
        remedy = "Run `timedatectl set-ntp true`: windows and times of jobs depend on the clock"
        yield warning("clock synchronization", "not synchronized", remedy)
    else:
        yield not_checked("clock synchronization", "timedatectl gave no answer")
