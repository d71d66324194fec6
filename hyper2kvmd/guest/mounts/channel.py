"""The two ways to the root helper, and the error messages if it cannot be reached.

`Command`: we run it, usually with sudo, which can refuse for many reasons, each with its own remedy. `Service`: systemd
runs it for each connection to a socket of root, so no setuid program is needed.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from hyper2kvmd.errors import BrokenInstallation, Kind, MigrationFailed
from hyper2kvmd.host import run

HELPER_SOURCE = Path(str(resources.files("hyper2kvmd") / "helper" / "helper.py"))
CONNECT_SECONDS = 30.0
END_SECONDS = 10.0
"""Time for a helper to end after its answer."""
SHELL_SIGNAL = 128
"""A shell adds the number of a signal to it."""


class Silence(Exception):
    """Raised within `Channel.opened` if no reply came; the channel finds the reason."""


class Channel(Protocol):
    def opened(self) -> AbstractContextManager[socket.socket]:
        """A connection to one run of the helper, for one request.

        The end of the block waits for the helper to end, which holds the returned mount until then. Raises
        BrokenInstallation (`helper-unreachable`), also when the block raises Silence.
        """
        ...


def unreachable(message: str, hint: str) -> BrokenInstallation:
    return BrokenInstallation("helper-unreachable", message, hint=hint)


def died(fact: str) -> MigrationFailed:
    """Something outside ended the helper, so that another attempt may succeed."""
    return MigrationFailed(
        "helper-died",
        f"the root helper did not answer: {fact}",
        hint="Read its log (`journalctl -t hyper2kvm-helper`) and the kernel's (often, memory ran out), then retry",
        kind=Kind.RETRY,
    )


# ---------------------------------------------------------------- a command that we run


@dataclass(frozen=True)
class Command:
    argv: tuple[str, ...]

    @contextmanager
    def opened(self) -> Iterator[socket.socket]:
        if Path(self.argv[0]).name == "sudo":
            self._check_sudo_can_work()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                process = run.start(self.argv, stdin=theirs.fileno(), stderr=subprocess.STDOUT)
            try:
                yield ours
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)
            except Silence:
                raise self._silent(process) from None
            finally:
                run.stop(process, grace=0)

    def _check_sudo_can_work(self) -> None:
        if run.no_new_privileges():
            raise unreachable(
                "the no_new_privs flag is set on this process, so that sudo cannot work",
                "Remove NoNewPrivileges= and what implies it from its unit (in a container, allow privilege "
                f"escalation). Or use no sudo: run `{SOCKET_LINE}`, and set helper: to that socket's path",
            )
        program = next((word for word in self.argv[1:] if word.startswith("/")), None)
        with suppress(PermissionError):
            if program is not None and not Path(program).exists():
                raise unreachable(f"{program} is not installed", f"Install the helper: {_install_line(program)}")

    def _silent(self, process: subprocess.Popen[bytes]) -> BrokenInstallation | MigrationFailed:
        """Why the helper ended, or hangs, without an answer: a signal, or sudo's own output with the remedy."""
        said, user = "", os.geteuid()
        try:
            output, _ = process.communicate(timeout=5)
            said = " / ".join(output.decode(errors="replace").split("\n")).strip(" /")[-1000:]
        except subprocess.TimeoutExpired:
            said = "it gave no answer in time"
        if number := _killed_by(process.returncode):
            return died(f"it was killed: {signal.strsignal(number)}")
        remedies = {
            r"password is required|not allowed to (run|execute)|not in the sudoers|unknown (user|uid)|"
            r"terminal is required": "Install sudoers.d/hyper2kvm as /etc/sudoers.d/hyper2kvm (root:root, mode 0440), "
            f"and run as the user that it names. This is uid {user}",
            r"command not found|No such file": f"Install the helper: {_install_line(self.argv[-1])}",
            r"no new privileges": "Remove NoNewPrivileges= from the unit",
            r"must be (owned by uid 0|setuid)|effective uid is not 0|nosuid": "Reinstall sudo: it must be setuid root",
        }
        hint = next((remedy for pattern, remedy in remedies.items() if re.search(pattern, said)), None)
        fallback = f"Run `{' '.join(self.argv)} < /dev/null` as this user and read its output"
        return unreachable(f"the root helper does not respond: {said or f'status {process.poll()}'}", hint or fallback)


def _killed_by(status: int | None) -> int | None:
    """The signal that ended sudo or the program below it: sudo ends by the same signal, or as a shell says it."""
    if status is None or 0 <= status <= SHELL_SIGNAL:
        return None
    return -status if status < 0 else status - SHELL_SIGNAL


def _install_line(program: str) -> str:
    return f"`install -D -o root -g root -m 0755 {HELPER_SOURCE} {program}`"


# ---------------------------------------------------------------- a socket that systemd listens on

SOCKET_UNIT = "hyper2kvm-helper.socket"
SOCKET_LINE = f"systemctl enable --now {SOCKET_UNIT}"


@dataclass(frozen=True)
class Service:
    path: Path

    @contextmanager
    def opened(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.settimeout(CONNECT_SECONDS)
            try:
                channel.connect(str(self.path))
            except OSError as error:
                raise self._closed(error) from error
            try:
                yield channel
                channel.settimeout(END_SECONDS)
                with suppress(TimeoutError, ConnectionResetError):
                    channel.recv(1)
            except Silence:
                raise self._silent() from None

    def _closed(self, error: OSError) -> BrokenInstallation:
        reason = error.strerror or str(error)
        remedies = {
            errno.ENOENT: f"Start it: `{SOCKET_LINE}`",
            errno.ECONNREFUSED: f"Restart it: `systemctl restart {SOCKET_UNIT}`",
            errno.EACCES: "Run as the user hyper2kvm, in the group that the socket belongs to (SocketGroup= in "
            f"{SOCKET_UNIT}). This is uid {os.geteuid()}",
            errno.EPROTOTYPE: f"Name the socket of {SOCKET_UNIT} in the configuration: this is another one",
        }
        hint = remedies.get(error.errno or 0, f"Read its state: `systemctl status {SOCKET_UNIT}`")
        return unreachable(f"the root helper's socket {self.path} cannot be reached: {reason}", hint)

    def _silent(self) -> MigrationFailed:
        return died(f"{self.path} closed the connection without a reply, or gave none in time")
