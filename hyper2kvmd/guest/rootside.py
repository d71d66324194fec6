"""The caller's end of the root helper's protocol: one process, one request, one reply, and descriptors both ways.

What the helper itself promises is said in `helper/helper.py`. Here is also what a person is told when it cannot be
reached: sudo has many ways to say no, each with its own remedy.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from hyper2kvmd import run
from hyper2kvmd.config import DEFAULT_HELPER
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.model import Cipher, Frozen

Outcome = Literal["ok", "refused", "failed"]
DEADLINE = 150.0
"""Seconds that the helper may take: more than it allows itself."""


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
    """How to call the root helper; `heard` is told the verb and the outcome of each request."""

    argv: tuple[str, ...]
    heard: Callable[[str, Outcome], None] = lambda _verb, _outcome: None


def default_helper() -> tuple[str, ...]:
    """The helper's argv: the packaged file itself for root, through sudo for everyone else."""
    if os.geteuid() == 0:
        return (sys.executable, "-IS", str(resources.files("hyper2kvmd") / "helper" / "helper.py"))
    return DEFAULT_HELPER


def mount(helper: Helper, request: MountRequest, fds: Sequence[int], on_silence: Callable[[], None]) -> int | Refused:
    """A detached mount as a descriptor, or the helper's reasoned no.

    `on_silence` is called when the helper hangs in the kernel: it must kill what the mount waits for. Raises
    BrokenInstallation (`helper-unreachable`).
    """
    with _heard(helper, request.verb) as outcome:
        data, received = _exchange(helper.argv, request, fds, on_silence)
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
        outcome.append("refused")
        return reply


def probe(helper: Helper, job: str, fstypes: tuple[str, ...]) -> Probed:
    """What this kernel offers, and which of `fstypes` it has. Raises BrokenInstallation (`helper-unreachable`)."""
    request = ProbeRequest(job=job, fstypes=fstypes)
    with _heard(helper, request.verb) as outcome:
        data, received = _exchange(helper.argv, request, [], None)
        for handle in received:
            os.close(handle)
        try:
            reply = _probe_reply.validate_json(data)
        except ValidationError as error:
            raise _other_version(data) from error
        if isinstance(reply, Refused):
            outcome.append("refused")
            raise _unreachable(f"the helper refuses: {reply.message}", _remedy(reply))
        outcome.append("ok")
        return reply


def _remedy(reply: Refused) -> str:
    if reply.error == "unsupported":
        return "allow user namespaces (sysctl user.max_user_namespaces), and run the service in no chroot"
    return "reinstall the helper and the daemon together"


@contextmanager
def _heard(helper: Helper, verb: str) -> Iterator[list[Outcome]]:
    """Tell how a request ended: as the block says, or `failed` when it had nothing to say."""
    outcome: list[Outcome] = []
    try:
        yield outcome
    finally:
        helper.heard(verb, outcome[0] if outcome else "failed")


def _exchange(
    helper: tuple[str, ...],
    request: ProbeRequest | MountRequest,
    fds: Sequence[int],
    on_silence: Callable[[], None] | None,
) -> tuple[bytes, list[int]]:
    """One run of the helper: its reply and the descriptors in it.

    A helper that is silent for `DEADLINE` waits for a frozen exporter in the kernel: that one is killed first,
    which lets the helper go on, to an error.
    """
    if Path(helper[0]).name == "sudo":
        _check_sudo_can_work(helper)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = run.start(helper, stdin=theirs.fileno())
        try:
            data, received = b"", list[int]()
            ours.settimeout(DEADLINE)
            with suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(ours, [request.model_dump_json().encode()], fds)
                try:
                    data, received, _, _ = socket.recv_fds(ours, 65536, 4, socket.MSG_CMSG_CLOEXEC)
                except TimeoutError:
                    if on_silence is not None:
                        on_silence()
                        ours.settimeout(30)
                        with suppress(TimeoutError):
                            data, received, _, _ = socket.recv_fds(ours, 65536, 4, socket.MSG_CMSG_CLOEXEC)
            if not data:
                raise _silent(helper, process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            return data, received
        finally:
            run.stop(process, grace=0)


def _check_sudo_can_work(helper: tuple[str, ...]) -> None:
    status = Path("/proc/self/status").read_text()
    if re.search(r"^NoNewPrivs:\s*1", status, re.MULTILINE):
        raise _unreachable(
            "the no_new_privs flag is set on this process, so that sudo cannot work",
            "remove NoNewPrivileges= and what implies it (PrivateDevices=, ProtectKernel*=, Restrict*=, "
            "SystemCall*=, DynamicUser=) from the unit, or allow privilege escalation in the container",
        )
    program = next((word for word in helper[1:] if word.startswith("/")), None)
    with suppress(PermissionError):
        if program is not None and not Path(program).exists():
            raise _unreachable(f"{program} is not installed", f"install the helper there: {_install_line(program)}")


def _install_line(program: str) -> str:
    source = resources.files("hyper2kvmd") / "helper" / "helper.py"
    return f"install -D -o root -g root -m 0755 {source} {program}"


def _silent(helper: tuple[str, ...], process: subprocess.Popen[bytes]) -> BrokenInstallation:
    """Why the helper ended, or hangs, without an answer: sudo's own words, and what to do about them."""
    said, user = "", os.geteuid()
    try:
        output, _ = process.communicate(timeout=5)
        said = " / ".join(output.decode(errors="replace").split("\n")).strip(" /")[-1000:]
    except subprocess.TimeoutExpired:
        said = "it gave no answer in time"
    remedies = (
        (
            r"password is required|not allowed to (run|execute)|not in the sudoers|unknown (user|uid)|"
            r"terminal is required",
            "install sudoers.d/hyper2kvm as /etc/sudoers.d/hyper2kvm (root:root, mode 0440) and run as the user that "
            f"it names; this is uid {user}",
        ),
        (r"command not found|No such file", f"install the helper: {_install_line(helper[-1])}"),
        (r"no new privileges", "remove NoNewPrivileges= from the unit"),
        (r"must be (owned by uid 0|setuid)|effective uid is not 0|nosuid", "reinstall sudo: it must be setuid root"),
    )
    hint = next((remedy for pattern, remedy in remedies if re.search(pattern, said)), None)
    fallback = f"run `{' '.join(helper)} < /dev/null` as this user and see what it says"
    return _unreachable(f"the root helper does not answer: {said or f'status {process.poll()}'}", hint or fallback)


def _unreachable(message: str, hint: str) -> BrokenInstallation:
    return BrokenInstallation("helper-unreachable", message, hint=hint)


def _other_version(data: bytes) -> BrokenInstallation:
    return _unreachable(
        f"the root helper's answer is not understood: {data[:200].decode(errors='replace')!r}",
        "reinstall the helper and the daemon together: they are of different versions",
    )
