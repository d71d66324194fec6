"""The root helper behind a socket, with nobody to ask sudo: who is let in, and what a connection can hold."""

from __future__ import annotations

import json
import pwd
import socket
import subprocess
import sys

from hyper2kvmd.model.disks import Image
from tests.support.asking import PROBE, ask, mount_request, refusal
from tests.support.host import HELPER, as_service, behind_socket
from tests.support.kernel import Kernel

OPERATOR = ["setpriv", "--reuid=nobody", "--regid=hyper2kvm", "--clear-groups", "--reset-env", "--"]
"""A member of the service's group, who runs the queue."""
STRANGER = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--reset-env", "--"]
MUTE = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
    channel.settimeout(60)
    channel.connect(sys.argv[1])
    print(channel.recv(65536).decode())
    print(len(channel.recv(65536)))
"""


def test_the_service_user_is_served(disk: Image, installed_helper: tuple[str, ...]) -> None:
    """With what a mount gives away: the same as through sudo."""
    with behind_socket(HELPER) as (path, _):
        answer = ask(path, request=mount_request(disk), fds=[["rw", str(disk.disks[0].path)]])
        assert answer["mounts"] == 1, answer
        refused = ask(path, request=mount_request(disk), fds=[["path", str(disk.disks[0].path)]])
        assert refusal(refused) == "bad-fd"
    assert Kernel.now().clean


def test_nobody_else_is_served(installed_helper: tuple[str, ...]) -> None:
    with behind_socket(HELPER) as (path, log):
        answer = ask(path, argv=OPERATOR, request=PROBE)
        assert (answer["reply"], answer["mounts"]) == (None, 0)
        assert "is not the user hyper2kvm" in log.read_text()


def test_a_stranger_does_not_even_connect(installed_helper: tuple[str, ...]) -> None:
    with behind_socket(HELPER) as (path, _):
        assert ask(path, argv=STRANGER, request=PROBE)["output"] == "Permission denied"


def test_a_word_of_sudos_that_is_not_the_callers(installed_helper: tuple[str, ...]) -> None:
    """The helper itself, in an environment that somebody prepared."""
    for uid in ("0", "", "x"):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.send(json.dumps(PROBE).encode())
            environment = {"SUDO_UID": uid}
            done = subprocess.run([HELPER], stdin=theirs.fileno(), env=environment, capture_output=True)
        assert (done.returncode == 0) == (uid == "0"), done


def test_no_environment_of_systemds_lets_others_in(installed_helper: tuple[str, ...]) -> None:
    nobody = pwd.getpwnam("nobody")
    with behind_socket(HELPER, SUDO_UID=str(nobody.pw_uid), SUDO_GID=str(nobody.pw_gid)) as (path, log):
        assert ask(path, argv=OPERATOR, request=PROBE)["reply"] is None
        assert ask(path, request=PROBE)["reply"]["ok"] is True, log.read_text()


def test_who_connects_and_says_nothing_is_dropped(installed_helper: tuple[str, ...]) -> None:
    with behind_socket(HELPER) as (path, _):
        done = subprocess.run(as_service(sys.executable, "-c", MUTE, path), capture_output=True, text=True, timeout=100)
        said, rest = done.stdout.splitlines()
    assert json.loads(said) == {"error": "bad-request", "message": "no request came"}
    assert rest == "0", "then it hangs up"
    assert Kernel.now().clean
