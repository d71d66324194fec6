"""`hyper2kvm-ssh`: the ssh command that the service's virsh starts. No user's configuration affects it.

Sources: ssh(1), ssh_config(5); libvirt's virNetSocketNewConnectSSH for the arguments that it passes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

SSH = "/usr/bin/ssh"
KNOWN_HOSTS = "/etc/hyper2kvm/known_hosts"
OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"UserKnownHostsFile={KNOWN_HOSTS}",
    "GlobalKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    "ProxyCommand=none",
    "ProxyJump=none",
    "PermitLocalCommand=no",
    "ControlMaster=no",
    "ControlPath=none",
    "IdentityAgent=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "Tunnel=no",
)
"""ssh uses the first value that is given for each."""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
ACCEPTED = {
    "-T": None,
    "-e": re.compile(r"none"),
    "-l": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*"),
    "-o": re.compile(r"BatchMode=yes"),
    "-p": re.compile(r"[0-9]{1,5}"),
}
"""libvirt's options, and the values of those that have one. Others are refused: some of them, such as -F, -A and -I,
override OPTIONS although they come later."""
FAILED = 255
"""ssh's own exit status for an error."""


class ArgumentRefused(Exception):
    """An argument that libvirt does not pass."""


def command(arguments: Sequence[str]) -> list[str]:
    """The argv for ssh. Raises ArgumentRefused."""
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            break
        if word not in ACCEPTED:
            raise ArgumentRefused(word)
        wanted = ACCEPTED[word]
        if wanted is not None and not wanted.fullmatch(value := next(rest, "")):
            raise ArgumentRefused(f"{word} {value}")
    if next(rest, "-").startswith("-"):
        raise ArgumentRefused("a command line without a host after --")
    options = [word for option in OPTIONS for word in ("-o", option)]
    return [SSH, "-F", "/dev/null", *options, *arguments]


def main() -> int:
    try:
        argv = command(sys.argv[1:])
    except ArgumentRefused as refusal:
        return _fail(f"{refusal}: not accepted: only libvirt starts this program. Use ssh. [ssh-option-refused]")
    try:
        os.execve(SSH, argv, ENVIRONMENT)  # noqa: S606 - no shell is wanted
    except OSError as error:
        return _fail(f"{SSH}: {error.strerror}. Install openssh-client. [tool-missing]")


def _fail(message: str) -> int:
    sys.stderr.write(f"hyper2kvm-ssh: {message}\n")
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
