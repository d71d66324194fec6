"""The service user, its groups, and what this user may do."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator

from hyper2kvmd.cli.checks.check import Check, Host, Line, error, ok, warning
from hyper2kvmd.config import SpoolFolder
from hyper2kvmd.host.person import SEARCH, WRITE
from hyper2kvmd.installed import SERVICE_USER, SUBMITTERS

TITLE = "Users and groups"
HOST_GROUPS = {"kvm": "boot proofs use KVM", "libvirt": "domains can be defined"}
"""Groups in which the service user has to be, and why."""
CREATE = "Run `systemd-sysusers hyper2kvm.conf`, or install the package again"


def checks() -> Iterator[Check]:
    yield Check(TITLE, f"user {SERVICE_USER}", _service)
    yield Check(TITLE, "this user", _this_user)


def _service(host: Host) -> Iterator[Line]:
    if host.service is None:
        yield warning(f"user {SERVICE_USER}", "does not exist: the service cannot run, one-shot runs can", CREATE)
        return
    yield ok(f"user {SERVICE_USER}", f"uid {host.service.uid}")
    for name in (SERVICE_USER, SUBMITTERS):
        yield _own_group(host, name)
    for name, purpose in HOST_GROUPS.items():
        yield _host_group(host, name, purpose)


def _own_group(host: Host, name: str) -> Line:
    number = _number(name)
    if number is None:
        return error(f"group {name}", "does not exist", CREATE)
    if host.service is None or number not in host.service.groups:
        return error(f"group {name}", f"{SERVICE_USER} is no member", _add(SERVICE_USER, name))
    return ok(f"group {name}", f"members: {', '.join(grp.getgrgid(number).gr_mem) or 'none besides the service'}")


def _host_group(host: Host, name: str, purpose: str) -> Line:
    number = _number(name)
    if number is None:
        return warning(f"group {name}", "does not exist", f"Install {'libvirt' if name == 'libvirt' else 'QEMU'}")
    if host.service is None or number not in host.service.groups:
        fact = f"{SERVICE_USER} is no member; with it, {purpose}"
        return warning(f"group {name}", fact, f"{_add(SERVICE_USER, name)}, then restart hyper2kvmd")
    return ok(f"group {name}", f"{SERVICE_USER} is a member")


def _this_user(host: Host) -> Iterator[Line]:
    thing, operators = f"this user ({host.me.name})", _number(SERVICE_USER)
    if host.me.uid == 0 or host.as_service:
        yield ok(thing, "operator: may do everything")
    elif operators is not None and operators in host.me.groups:
        yield ok(thing, f"operator, by the group {SERVICE_USER}")
        yield from _stale_session(thing, SERVICE_USER, operators)
    elif _may_submit(host):
        yield ok(thing, "submitter: may drop migrations into the spool, and see its own jobs")
        submitters = _number(SUBMITTERS)
        if submitters in host.me.groups:
            yield from _stale_session(thing, SUBMITTERS, submitters)
    else:
        fact = "neither operator nor submitter: one-shot runs only"
        yield Line(level="ok", object=thing, fact=fact, remedy=f"{_add(host.me.name, SUBMITTERS)} to submit migrations")


def _may_submit(host: Host) -> bool:
    try:
        return host.me.may(WRITE | SEARCH, host.config.spool_dir / SpoolFolder.INCOMING)
    except OSError:
        return False


def _stale_session(thing: str, name: str, number: int | None) -> Iterator[Line]:
    if number not in {*os.getgroups(), os.getegid()}:
        yield warning(thing, f"this session began before the membership in {name}", "Log out and in again")


def _number(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _add(user: str, group: str) -> str:
    return f"Run `usermod -aG {group} {user}`"
