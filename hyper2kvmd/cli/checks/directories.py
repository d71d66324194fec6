"""The configured directories: space, owners and modes. Each has a check of its own: a dead mount delays no other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hyper2kvmd import units
from hyper2kvmd.cli.checks.check import Check, Host, Line, error, ok, warning
from hyper2kvmd.config import SPOOL_MODES, DaemonConfig, SpoolFolder
from hyper2kvmd.host import space
from hyper2kvmd.host.person import Person, group_name
from hyper2kvmd.installed import SERVICE_USER, SUBMITTERS

PRIVATE_MODE = 0o700
DEFAULT_SPOOL = DaemonConfig().spool_dir


def checks(config: DaemonConfig) -> Iterator[Check]:
    for key in ("state_dir", "conversion_dir", "output_dir", "spool_dir"):
        path: Path = getattr(config, key)
        yield Check("Space", f"{key} {path}", partial(_space, key, path))
    yield Check("Spool and directories", f"conversion_dir {config.conversion_dir}", _conversion_dir)
    for folder in SpoolFolder:
        yield Check("Spool and directories", str(config.spool_dir / folder), partial(_folder, folder))


def _space(key: str, path: Path, host: Host) -> Iterator[Line]:
    thing = f"{key} {path}"
    try:
        facts = os.statvfs(path)
    except FileNotFoundError:
        yield _missing(thing, path, host)
        return
    size, reserve = facts.f_blocks * facts.f_frsize, host.config.space_reserve
    free, left = facts.f_bavail * facts.f_frsize, space.available(path, reserve)
    fact = f"{units.size(free)} of {units.size(size)} free, reserve {units.size(space.kept(reserve, size))}"
    if left:
        yield ok(thing, fact)
    else:
        remedy = "Free space there, run `h2kvmctl gc`, or set a smaller space_reserve"
        yield error(thing, f"{fact}: jobs wait for space", remedy)


def _conversion_dir(host: Host) -> Iterator[Line]:
    path = host.config.conversion_dir
    thing = f"conversion_dir {path}"
    if path.exists():
        yield _judged(thing, path, host, PRIVATE_MODE, SERVICE_USER)


def _folder(folder: SpoolFolder, host: Host) -> Iterator[Line]:
    path = host.config.spool_dir / folder
    group = SERVICE_USER if folder == SpoolFolder.ACTIVE else SUBMITTERS
    try:
        yield _judged(str(path), path, host, SPOOL_MODES[folder], group)
    except FileNotFoundError:
        yield _missing(str(path), path, host)


def _judged(thing: str, path: Path, host: Host, mode: int, group: str) -> Line:
    facts = path.stat()
    owner, has_group, has_mode = Person.of(facts.st_uid).name, group_name(facts.st_gid), stat.S_IMODE(facts.st_mode)
    has = f"owner {owner}, group {has_group}, mode {has_mode:04o}"
    service = SERVICE_USER if host.service else host.me.name
    if has_mode == mode and owner == service and (has_group == group or not mode & stat.S_IRWXG):
        return ok(thing, has)
    wanted = f"owner {service}, group {group}, mode {mode:04o}"
    return warning(thing, f"{has}; expected: {wanted}", _remedy(path, host))


def _remedy(path: Path, host: Host) -> str:
    """Never a change of rights by hand: the configuration may name a directory that others use."""
    if _is_packaged(path):
        return "Run `systemd-tmpfiles --create hyper2kvm.conf` as root"
    if path.is_relative_to(host.config.spool_dir):
        return "Start the daemon, which sets them, or reports why it cannot"
    return "Set it to a directory that does not exist yet, and create that one"


def _is_packaged(path: Path) -> bool:
    return path.is_relative_to(DEFAULT_SPOOL) or path.is_relative_to(DaemonConfig().state_dir)


def _missing(thing: str, path: Path, host: Host) -> Line:
    remedy = f"Create it as root: `install -d -o {SERVICE_USER} -g {SERVICE_USER} -m 0750 {path}`"
    if _is_packaged(path):
        remedy = "Run `systemd-tmpfiles --create hyper2kvm.conf` as root"
    if host.service is None:
        return warning(thing, "does not exist; the service needs it", remedy)
    return error(thing, "does not exist", remedy)
