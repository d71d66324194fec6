"""The sockets that the daemon listens on, and who may connect to the control socket."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from pathlib import Path

from hyper2kvmd.daemon.doors import BACKLOG, CONTROL_BACKLOG
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.host import acl
from hyper2kvmd.host.person import READ, SEARCH, WRITE, Person, group_name
from hyper2kvmd.model.jobs import NOBODY_AT_ALL

log = logging.getLogger(__name__)


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, for the owner and the group; the socket of a dead daemon is removed.

    Raises BrokenInstallation (`socket-in-use`, `socket-unusable`).
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        _remove_stale(path)
        mask = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(CONTROL_BACKLOG)
        listener.setblocking(False)
    except (OSError, BrokenInstallation) as error:
        listener.close()
        if isinstance(error, BrokenInstallation):
            raise
        raise BrokenInstallation(
            "socket-unusable",
            f"the control socket {path} cannot be created: {error.strerror or error}",
            hint="Correct the owner of its directory, or set control_socket to a path of at most 107 bytes",
        ) from error
    return listener


def _remove_stale(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise BrokenInstallation(
            "socket-unusable",
            f"{path} exists and is not a socket",
            hint="Remove it, or set control_socket to another path",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise BrokenInstallation(
        "socket-in-use",
        f"another program listens on the control socket {path}",
        hint="Stop that daemon, or set control_socket to another path",
    )


def admit_submitters(path: Path, incoming: Path) -> None:
    """Let the group of incoming/ connect, if it may drop files there. If that is not possible, log why."""
    group = incoming.stat().st_gid
    members = Person("", NOBODY_AT_ALL, frozenset((group,)))
    if not members.may(WRITE | SEARCH, incoming):
        return
    try:
        _allow(path, members, group, READ | WRITE)
        _allow(path.parent, members, group, SEARCH)
    except OSError as error:
        log.warning(
            "only operators can use the control socket %s: its access control list cannot have the group %s: %s",
            path,
            group_name(group),
            error.strerror,
        )


def _allow(path: Path, members: Person, group: int, wanted: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not members.may(wanted, handle):
            acl.grant(handle, acl.AclEntry(acl.GROUP, wanted, group))
    finally:
        os.close(handle)


def listen_on_port(address: str) -> socket.socket:
    """A listening socket at `host:port`. Raises BrokenInstallation (`metrics-unusable`)."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        raise BrokenInstallation(
            "metrics-unusable",
            f"cannot listen on metrics_listen {address}: {getattr(error, 'strerror', None) or error}",
            hint="Set metrics_listen to a free address and port of this host",
        ) from error
    return listener


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel the task and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
