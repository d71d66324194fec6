"""The caller's end of the root helper's protocol: one request, one reply, and descriptors both ways.

The helper's guarantees are documented in `helper/helper.py`; `channel.py` connects to it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from hyper2kvmd.config import DEFAULT_HELPER
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.guest.mounts.channel import (
    HELPER_SOURCE,
    Channel,
    Command,
    Service,
    Silence,
    died,
    unreachable,
)
from hyper2kvmd.model.disks import Cipher
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.orders import HelperCall
from hyper2kvmd.progress import HelperOutcome

JOURNAL_DIRTY = "journal-dirty"
"""The answer to a read-only mount that needs a replay first, which only a writable one performs."""
DEVICE_FAULTS = ("device-failed", "timed-out")
"""Answers that are about the devices below a file system, and not about the file system."""
KILLED = "killed"
"""The answer of a helper of which a process was killed."""
DEADLINE = 150.0
"""Seconds that the helper may take: more than its own time limit."""


class Probed(Frozen):
    ok: Literal[True]
    fstypes: tuple[str, ...]
    loop: bool
    nbd: bool
    dm: tuple[str, ...]
    """device-mapper's targets."""


class Mounted(Frozen):
    ok: Literal[True]
    device: str


class Refused(Frozen):
    error: str
    message: str


_probe_reply: TypeAdapter[Probed | Refused] = TypeAdapter(Probed | Refused)
_mount_reply: TypeAdapter[Mounted | Refused] = TypeAdapter(Mounted | Refused)


class Leg(Frozen):
    fd: int
    offset: int
    length: int


class Joined(Frozen):
    kind: Literal["linear", "striped", "mirror"]
    chunk: int
    legs: tuple[Leg, ...]


class Decrypted(Frozen):
    key: int
    cipher: Cipher
    sector: int
    iv: int


class Export(Frozen):
    size: int
    flags: int


class ProbeRequest(Frozen):
    verb: Literal["probe"] = "probe"
    job: str
    fstypes: tuple[str, ...]


class MountRequest(Frozen):
    verb: Literal["mount"] = "mount"
    job: str
    transport: Literal["file", "nbd"]
    fstype: str
    read_only: bool
    table: tuple[Joined, ...]
    crypt: tuple[Decrypted, ...] = ()
    nbd: tuple[Export, ...] = ()


@dataclass(frozen=True)
class Helper:
    """How to call the root helper; `heard` receives the verb and the outcome of each request."""

    call: HelperCall
    heard: Callable[[str, HelperOutcome], None] = lambda _verb, _outcome: None

    @property
    def way(self) -> Channel:
        return Service(self.call) if isinstance(self.call, Path) else Command(self.call)


def default_helper() -> tuple[str, ...]:
    """The helper's argv: the packaged file itself for root, through sudo for everyone else."""
    if os.geteuid() == 0:
        return (sys.executable, "-IS", str(HELPER_SOURCE))
    return DEFAULT_HELPER


def mount(helper: Helper, request: MountRequest, fds: Sequence[int], on_silence: Callable[[], None]) -> int | Refused:
    """A detached mount as a descriptor, or the helper's refusal.

    `on_silence` is called when the helper hangs in the kernel: it must kill the exporters that the mount waits for.
    Raises BrokenInstallation (`helper-unreachable`).
    """
    with _heard(helper, request.verb) as outcome:
        data, received = _exchange(helper.way, request, fds, on_silence)
        try:
            reply = _mount_reply.validate_json(data)
        except ValidationError as error:
            raise _other_version(data) from error
        if isinstance(reply, Mounted) and len(received) == 1:
            outcome.append("ok")
            return received[0]
        for handle in received:
            os.close(handle)
        if isinstance(reply, Mounted):
            raise _other_version(data)
        outcome.append(outcome_of(reply.error))
        return reply


def probe(helper: Helper, job: str, fstypes: tuple[str, ...]) -> Probed:
    """The abilities of this kernel, and which of `fstypes` it has. Raises BrokenInstallation (`helper-unreachable`)."""
    request = ProbeRequest(job=job, fstypes=fstypes)
    with _heard(helper, request.verb) as outcome:
        data, received = _exchange(helper.way, request, [], None)
        for handle in received:
            os.close(handle)
        try:
            reply = _probe_reply.validate_json(data)
        except ValidationError as error:
            raise _other_version(data) from error
        if isinstance(reply, Refused):
            outcome.append(outcome_of(reply.error))
            if reply.error == KILLED:
                raise died(reply.message)
            raise unreachable(f"the helper refused the request: {reply.message}", _remedy(reply))
        outcome.append("ok")
        return reply


def outcome_of(error: str) -> HelperOutcome:
    """What a refusal is counted as. Only a request that the daemon never sends is a sign of an attack."""
    if error == JOURNAL_DIRTY:
        return "ok"
    if error in ("internal", "not-root", KILLED):
        return "failed"
    return "refused" if error.startswith("bad-") else "unable"


def _remedy(reply: Refused) -> str:
    if reply.error == "unsupported":
        return "Allow user namespaces (sysctl user.max_user_namespaces), and run the service outside a chroot"
    return "Reinstall the helper and the daemon together"


@contextmanager
def _heard(helper: Helper, verb: str) -> Iterator[list[HelperOutcome]]:
    """Report the outcome of a request: the one that the block adds, or `failed` without one."""
    outcome: list[HelperOutcome] = []
    try:
        yield outcome
    finally:
        helper.heard(verb, outcome[0] if outcome else "failed")


def _exchange(
    way: Channel,
    request: ProbeRequest | MountRequest,
    fds: Sequence[int],
    on_silence: Callable[[], None] | None,
) -> tuple[bytes, list[int]]:
    """One run of the helper: its reply and the descriptors in it.

    A helper that is silent for `DEADLINE` waits for a frozen exporter in the kernel: the exporter is killed, so that
    the helper continues and fails with an error.
    """
    with way.opened() as channel:
        data, received = b"", list[int]()
        channel.settimeout(DEADLINE)
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(channel, [request.model_dump_json().encode()], fds)
            try:
                data, received, _, _ = socket.recv_fds(channel, 65536, 4, socket.MSG_CMSG_CLOEXEC)
            except TimeoutError:
                if on_silence is not None:
                    on_silence()
                    channel.settimeout(30)
                    with suppress(TimeoutError):
                        data, received, _, _ = socket.recv_fds(channel, 65536, 4, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise Silence
        return data, received


def _other_version(data: bytes) -> BrokenInstallation:
    return unreachable(
        f"the root helper's answer is invalid: {data[:200].decode(errors='replace')!r}",
        "Reinstall the helper and the daemon together: they are of different versions",
    )
