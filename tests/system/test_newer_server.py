"""Debian 13, and the other way to the root helper: its socket, without sudo, with the service's unit hardened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.own_host import own_host as own_host
from tests.system.story import GUEST, WITHOUT_SUDO, Machine, installed, package

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, installed_helper: tuple[str, ...]) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("newer-server")
    with installed("trixie", folder, current=package("trixie")) as machine:
        yield machine
    for path in folder.glob("*.raw"):
        path.unlink()


def test_a_guest_is_migrated_without_sudo(machine: Machine) -> None:
    run = machine.server.run
    run(f"{WITHOUT_SUDO}systemctl restart hyper2kvmd")
    run("virsh -q net-start default")
    machine.succeeded(machine.drop("web01", vmdk=GUEST, memory=512, libvirt_import=True))
    assert " nbd " in run("journalctl -b --no-pager -t hyper2kvm-helper")
    assert "running" in run("virsh -q start web01; sleep 5; virsh -q domstate web01; virsh -q destroy web01")
    assert run("systemctl list-units --all --plain --no-legend 'hyper2kvm-helper@*'") == ""
    assert machine.denials() == ""


def test_a_windows_guest_is_repaired(machine: Machine) -> None:
    """With the NTFS library of this release."""
    machine.repairs_windows()


def test_what_it_made_boots(machine: Machine) -> None:
    machine.boots_outside("web01")


def test_the_windows_that_it_repaired(machine: Machine) -> None:
    machine.windows_is_repaired()
