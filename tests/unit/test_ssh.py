"""The command line that `hyper2kvm-ssh` makes of libvirt's."""

from __future__ import annotations

import pytest

from hyper2kvmd.cli import ssh
from hyper2kvmd.targets.libvirt.connection import Libvirt

NEEDED = {
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UserKnownHostsFile=/etc/hyper2kvm/known_hosts",
    "GlobalKnownHostsFile=/dev/null",
    "ProxyCommand=none",
    "ProxyJump=none",
    "PermitLocalCommand=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
}


@pytest.mark.parametrize(
    "given",
    [
        "-T -e none -o BatchMode=yes -- kvm02 sh -c true",
        "-p 2222 -l root -T -e none -o BatchMode=yes -- kvm02 true",
        "-p 22 -- fd00::1 true",
    ],
)
def test_our_options_stand_before_libvirts(given: str) -> None:
    words = given.split()
    argv = ssh.command(words)
    assert argv[:3] == ["/usr/bin/ssh", "-F", "/dev/null"]
    assert argv[-len(words) :] == words
    ours = argv[3 : -len(words)]
    assert set(ours[::2]) == {"-o"} and set(ours[1::2]) >= NEEDED


@pytest.mark.parametrize("given", ["", "-p", "-p x -- a b", "-e ^ -- a b", "-T kvm02", "-X -- a b", "-l -- a b"])
def test_anything_else_is_refused(given: str) -> None:
    with pytest.raises(ssh.ArgumentRefused):
        ssh.command(given.split())


def test_the_remedy_names_what_is_missing() -> None:
    assert ssh.KNOWN_HOSTS in Libvirt("qemu+ssh://kvm02/system", restricted=True).access_remedy
    assert "libvirt" in Libvirt("qemu+ssh://kvm02/system").access_remedy
