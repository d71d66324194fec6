"""Who is connected to the control socket, and what they may do."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hyper2kvmd.daemon.operations import AnyOperation, Role
from hyper2kvmd.daemon.storage import unwritable
from hyper2kvmd.daemon.threads import HANG_SECONDS, in_a_thread
from hyper2kvmd.errors import InvalidInput, TryLater
from hyper2kvmd.host.person import SEARCH, WRITE, Person
from hyper2kvmd.model.jobs import NOBODY_AT_ALL

SO_PEERGROUPS = 59
"""include/uapi/asm-generic/socket.h"""
CREDENTIALS = struct.Struct("3i")
MAX_GROUPS = 256
"""Python reads options of 1024 bytes at most."""
MAX_REQUESTS = 4
"""Requests of one submitter that are handled at the same time: the job database has one thread."""
MAX_JUDGING = 32
"""Callers whose rights are looked up at the same time: each holds a thread while the spool does not respond."""


@dataclass(frozen=True)
class Caller:
    person: Person
    role: Role

    def sees(self, submitter_uid: int) -> bool:
        """Whether they may know of jobs of this submitter."""
        return self.role is Role.OPERATOR or self.person.uid == submitter_uid

    @property
    def only_uid(self) -> int | None:
        """The submitter whose jobs they may know of; None for all."""
        return None if self.role is Role.OPERATOR else self.person.uid


class Callers:
    """Judges the callers of one control socket."""

    def __init__(self, incoming: Path, group: int) -> None:
        """`group` is the group of the socket, whose members are operators."""
        self._incoming, self._group = incoming, group
        self._busy: Counter[int] = Counter()
        self._judging = 0

    async def of(self, connection: socket.socket | None) -> Caller:
        """The user who has connected, with the groups of their process, as reported by the kernel.

        Raises TryLater (`storage-unwritable`) if the spool does not respond.
        """
        person = Person("", NOBODY_AT_ALL, frozenset()) if connection is None else peer(connection)
        if self._judging >= MAX_JUDGING:
            raise self._hangs()
        self._judging += 1
        judging = in_a_thread("caller", self._judged, person)
        judging.add_done_callback(self._count_down)
        done, _ = await asyncio.wait([judging], timeout=HANG_SECONDS)
        if not done:
            raise self._hangs()
        return judging.result()

    def _hangs(self) -> TryLater:
        return unwritable("spool", self._incoming.parent, "it does not respond")

    def _count_down(self, judging: asyncio.Future[Caller]) -> None:
        self._judging -= 1
        if not judging.cancelled():
            judging.exception()

    def _judged(self, person: Person) -> Caller:
        return Caller(replace(person, name=Person.of(person.uid).name), self._role(person))

    def _role(self, person: Person) -> Role:
        if person.uid == NOBODY_AT_ALL:
            return Role.NOBODY
        if person.uid in (0, os.geteuid()) or self._group in person.groups:
            return Role.OPERATOR
        try:
            return Role.SUBMITTER if person.may(WRITE | SEARCH, self._incoming) else Role.NOBODY
        except OSError:
            return Role.NOBODY

    def require(self, caller: Caller, operation: AnyOperation) -> None:
        """Raises InvalidInput (`socket-forbidden`, `operator-only`)."""
        if caller.role is Role.NOBODY:
            raise InvalidInput(
                "socket-forbidden",
                f"{caller.person.name or 'this user'} may not use the control socket",
                hint="Become a member of the group hyper2kvm or hyper2kvm-submit, or use sudo",
            )
        if caller.role < operation.who:
            raise InvalidInput(
                "operator-only",
                f"{operation.name}: {caller.person.name} is no operator",
                hint="Ask a member of the group hyper2kvm, or use sudo",
            )

    @contextmanager
    def turn(self, caller: Caller) -> Iterator[None]:
        """Handle a request within the block. Raises TryLater (`requests-many`) for too many of one submitter."""
        uid = caller.person.uid
        if caller.role is not Role.OPERATOR and self._busy[uid] >= MAX_REQUESTS:
            raise TryLater(
                "requests-many",
                f"{MAX_REQUESTS} requests of {caller.person.name} are being handled",
                hint="Send fewer requests at the same time",
            )
        self._busy[uid] += 1
        try:
            yield
        finally:
            self._busy[uid] -= 1
            if not self._busy[uid]:
                del self._busy[uid]


def peer(connection: socket.socket) -> Person:
    """The connected user without a name. Their groups are those of the process at the time of the connection."""
    _, uid, gid = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * MAX_GROUPS)
    except OSError:  # too many groups
        return replace(Person.of(uid), name="")
    groups = struct.unpack(f"{len(data) // 4}I", data)
    return Person("", uid, frozenset((gid, *groups)))
