"""Determines which libvirt a job may use; the only caller of virsh."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hyper2kvmd.errors import BrokenInstallation, Kind, MigrationFailed, Unsafe
from hyper2kvmd.host.run import Completed, run
from hyper2kvmd.model.orders import Order

LOCAL_URIS = ("qemu:///system", "qemu:///session", "test:///default")
"""This host's own libvirt, which every job may use."""
STALL_SECONDS = 60.0
SESSION_VARIABLES = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "SSH_AUTH_SOCK")
"""Variables that virsh needs to find a person's own libvirt, or the keys for another host."""
SSH = "hyper2kvm-ssh"
VIRSH = "virsh"
LOST = re.compile(
    r"failed to connect to the hypervisor|Failed to connect socket|Disconnected from|End of file while reading data"
    r"|Cannot (?:recv|write) data|client socket is closed|Connection (?:reset|refused|timed out)|Broken pipe",
    re.IGNORECASE,
)
"""Messages of virsh if the connection failed: then libvirt has answered nothing."""
REFUSED = re.compile(
    r"Permission denied|authentication (?:failed|unavailable)|access denied|Host key verification failed"
    r"|no connection driver",
    re.IGNORECASE,
)
"""Causes that do not end by themselves."""


@dataclass(frozen=True)
class Libvirt:
    uri: str
    """As the migration has it: messages and results show this one."""
    restricted: bool = False
    """Whether the service connects, on behalf of a submitter: then no user's configuration is used."""

    @staticmethod
    def of(order: Order) -> Libvirt:
        """The libvirt that the migration names.

        Raises Unsafe (`libvirt-uri-not-allowed`) for one that is neither local nor in the order's bounds.
        """
        uri, listed = order.migration.libvirt_uri, order.bounds.libvirt_uris
        restricted = order.submitter is not None or listed is not None
        if restricted and uri not in (*LOCAL_URIS, *(listed or ())):
            raise Unsafe(
                "libvirt-uri-not-allowed",
                f"libvirt_uri {uri}: not local, and not listed in allowed_libvirt_uris",
                hint="Use qemu:///system, or ask the administrator to add the URI to allowed_libvirt_uris",
            )
        return Libvirt(uri, restricted)

    def virsh(self, *words: str) -> Completed:
        """Run virsh to its end. A non-zero exit status is libvirt's answer: without an answer this raises.

        Raises BrokenInstallation (`tool-missing`), and MigrationFailed (`libvirt-unreachable`, `libvirt-refused`, and
        as `run` does).
        """
        done = self._run(*words)
        if done.returncode != 0 and LOST.search(done.stderr):
            raise self._no_answer(done)
        if done.returncode != 0 and (connected := self._run("uri")).returncode != 0:
            raise self._no_answer(connected)
        return done

    def _no_answer(self, done: Completed) -> MigrationFailed:
        reason = reason_of(done)
        if REFUSED.search(done.stderr):
            fact = f"libvirt at {self.uri} refuses the connection: {reason}"
            return MigrationFailed("libvirt-refused", fact, hint=self.access_remedy, kind=Kind.OPERATOR)
        fact = f"libvirt at {self.uri} does not respond: {reason}"
        return MigrationFailed("libvirt-unreachable", fact, hint=self._start, kind=Kind.RETRY)

    def _run(self, *words: str) -> Completed:
        names = () if self.restricted else SESSION_VARIABLES
        environment = {name: os.environ[name] for name in names if name in os.environ}
        argv = [VIRSH, "--quiet", "--connect", self._address(), *words]
        return run(argv, stall_seconds=STALL_SECONDS, check=False, environment=environment)

    @property
    def access_remedy(self) -> str:
        if self._by_our_ssh:
            return (
                "Add the host's key to /etc/hyper2kvm/known_hosts, and the service user's public key to"
                " authorized_keys on that host"
            )
        return "Add this user to the group libvirt, or correct libvirt_uri"

    @property
    def _start(self) -> str:
        return "Check the network and libvirtd on that host" if self._by_our_ssh else "Start libvirtd on that host"

    @property
    def _by_our_ssh(self) -> bool:
        return self.restricted and self.uri.startswith("qemu+ssh:")

    def _address(self) -> str:
        """The URI with the program that libvirt uses as ssh (libvirt.org/uri.html, "ssh transport")."""
        if self._by_our_ssh:
            return f"{self.uri}?command={quote(str(_ssh()))}&no_tty=1"
        return self.uri


def reason_of(completed: Completed) -> str:
    """Why virsh failed, in its own words."""
    lines = [line.removeprefix("error: ").strip() for line in completed.stderr.splitlines() if line.strip()]
    told = lines[1:] or lines  # the first line only says which command failed
    return " / ".join(told) or f"virsh exited with status {completed.returncode}"


def _ssh() -> Path:
    """The program `cli/ssh.py`, which is installed next to the Python interpreter."""
    program = Path(sys.executable).with_name(SSH)
    if not os.access(program, os.X_OK):
        raise BrokenInstallation("tool-missing", f"{program}: not installed", hint="Install hyper2kvmd again")
    return program
