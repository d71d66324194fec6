"""The state that a guest shows after its boot, against the one that its files describe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hyper2kvmd.guest.linux.boot_proof import state
from hyper2kvmd.guest.linux.boot_proof.state import GuestState, differences, expected_state, is_complete, shown_state
from hyper2kvmd.guest.linux.network.addresses import Address, addresses
from tests.support.guest_on_disk import put, tree_of

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB"
INTERFACES = "auto ens192\niface ens192 inet static\n    address 10.0.2.77/24\n    gateway 10.0.2.2\n"
SHOWN = f"""\
web01 login:
h2k-state begin
h2k-state host web01
h2k-state address lo 127.0.0.1/8
h2k-state address ens192 10.0.2.77/24
h2k-state mount /
h2k-state mount /srv/my\\040data
h2k-state key {KEY}
h2k-state end
"""


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    put(tmp_path, "etc/hostname", "web01\n")
    put(tmp_path, "etc/network/interfaces", INTERFACES)
    lines = [
        "UUID=1 / ext4 defaults 0 1",
        "UUID=2 /srv/my\\040data ext4 defaults 0 2",
        "UUID=3 none swap sw 0 0",
        "UUID=4 /backup ext4 noauto 0 0",
        "UUID=5 /maybe ext4 nofail 0 0",
        "nas:/export /nas nfs defaults 0 0",
    ]
    put(tmp_path, "etc/fstab", "\n".join(lines) + "\n")
    put(tmp_path, "etc/ssh/ssh_host_ed25519_key.pub", f"{KEY} root@web01\n")
    return tmp_path


def expected(guest: Path) -> GuestState:
    with tree_of(guest) as tree:
        return expected_state(tree)


def shown(text: str) -> GuestState:
    found = shown_state(text)
    assert found is not None
    return found


def test_a_guest_as_its_files_say(guest: Path) -> None:
    assert differences(expected(guest), shown(SHOWN)) == ()


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        ("host web01", "host localhost", "its host name is localhost, not web01"),
        ("ens192 10.0.2.77/24", "ens192 10.0.2.15/24", "10.0.2.77 is not in force on ens192"),
        ("ens192 10", "enp1s0 10", "10.0.2.77 is not in force on ens192"),
        ("h2k-state mount /srv/my\\040data\n", "", "/srv/my data of its fstab is not mounted"),
        ("AAAAC3", "AAAAD4", "its SSH host keys changed: ssh-ed25519"),
    ],
)
def test_each_difference_is_named(guest: Path, before: str, after: str, difference: str) -> None:
    assert differences(expected(guest), shown(SHOWN.replace(before, after))) == (difference,)


def test_failed_units_are_listed_once() -> None:
    text = SHOWN.replace("h2k-state end", "h2k-state failed cups.service\nh2k-state end")
    assert shown(text + text).failed_units == ("cups.service",)


def test_the_state_is_complete_after_its_second_time() -> None:
    """A message of the kernel may break a line of the first."""
    assert shown_state(SHOWN.replace("h2k-state end", "")) is None
    assert not is_complete(SHOWN) and is_complete(SHOWN + SHOWN)


def test_many_differences_are_shortened(guest: Path) -> None:
    lines = "".join(f"UUID={number} /data{number} ext4 defaults 0 2\n" for number in range(9))
    put(guest, "etc/fstab", lines)
    found = differences(expected(guest), shown(SHOWN))
    assert len(found) == 6 and found[-1] == "and 4 more"


def test_the_script_prints_what_is_understood(guest: Path, tmp_path: Path) -> None:
    """Run here, with this host's own state, apart from the wait for systemd."""
    script = state.SCRIPT_TEXT.replace("sleep 2; show", "show").replace(">/dev/ttyS0", "").replace("systemctl", "false")
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert is_complete(done.stdout)
    found = shown(done.stdout)
    assert found.hostname == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert "/proc" in found.mounts


def test_the_unit_starts_with_the_guest(guest: Path) -> None:
    (guest / "etc/systemd/system").mkdir(parents=True)
    with tree_of(guest) as tree:
        assert not state.show_state(tree)
    put(guest, "usr/lib/systemd/systemd", "")
    (guest / "sbin").mkdir()
    (guest / "sbin/init").symlink_to("/usr/lib/systemd/systemd")
    with tree_of(guest) as tree:
        assert state.show_state(tree)
    wanted = guest / "etc/systemd/system/multi-user.target.wants/hyper2kvm-state.service"
    assert str(wanted.readlink()) == state.UNIT


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("etc/network/interfaces", INTERFACES, {Address("ens192", "10.0.2.77")}),
        ("etc/network/interfaces", INTERFACES.replace("auto", "#auto"), set()),
        ("etc/network/interfaces", INTERFACES.replace("static", "dhcp"), set()),
        (
            "etc/sysconfig/network-scripts/ifcfg-ens192",
            "DEVICE=ens192\nIPADDR=10.0.2.77\nPREFIX=24\nIPADDR1='10.0.2.78'\n",
            {Address("ens192", "10.0.2.77"), Address("ens192", "10.0.2.78")},
        ),
        ("etc/sysconfig/network-scripts/ifcfg-ens192", "ONBOOT=no\nIPADDR=10.0.2.77\n", set()),
        (
            "etc/NetworkManager/system-connections/lan.nmconnection",
            "[connection]\ninterface-name=ens192\n[ipv4]\naddress1=10.0.2.77/24,10.0.2.2\n[ipv6]\naddress1=2001:DB8::7/64\n",
            {Address("ens192", "10.0.2.77"), Address("ens192", "2001:db8::7")},
        ),
        (
            "etc/netplan/50.yaml",
            "network:\n  ethernets:\n    ens192: {addresses: [10.0.2.77/24]}\n"
            "    lan: {match: {macaddress: '00:50:56:8a:10:02'}, addresses: [10.0.2.78/24]}\n",
            {Address("ens192", "10.0.2.77"), Address("", "10.0.2.78")},
        ),
        (
            "etc/systemd/network/10.network",
            "[Match]\nName=ens192\n[Network]\nAddress=10.0.2.77/24\n[Address]\nAddress=10.0.2.78/24\n",
            {Address("ens192", "10.0.2.77"), Address("ens192", "10.0.2.78")},
        ),
    ],
)
def test_static_addresses(tmp_path: Path, path: str, text: str, found: set[Address]) -> None:
    put(tmp_path, path, text)
    with tree_of(tmp_path) as tree:
        assert set(addresses(tree)) == found


@pytest.mark.parametrize("text", ["", "\n", "ssh-rsa\n"])
def test_a_host_key_without_a_key_is_not_compared(guest: Path, text: str) -> None:
    put(guest, "etc/ssh/ssh_host_rsa_key.pub", text)
    put(guest, "etc/ssh/ssh_host_ed25519_key.pub", f"{KEY} root@web01\n")
    with tree_of(guest) as tree:
        expected = expected_state(tree)
    assert expected.host_keys == {KEY}
    shown = shown_state("h2k-state begin\nh2k-state host web01\nh2k-state end\n")
    assert shown is not None
    assert any("SSH host keys changed: ssh-ed25519" in text for text in differences(expected, shown))


def test_files_that_no_guest_has_are_not_kept(guest: Path) -> None:
    for number in range(400):
        put(guest, f"etc/ssh/ssh_host_{number}_key.pub", f"ssh-rsa {number}\n")
    put(guest, "etc/ssh/ssh_host_0_key.pub", f"ssh-rsa {'A' * (1 << 20)}\n")
    put(guest, "etc/fstab", "".join(f"UUID=1 /mnt/{number} ext4 defaults 0 0\n" for number in range(400)))
    with tree_of(guest) as tree:
        expected = expected_state(tree)
    assert len(expected.mounts) == 256
    assert 0 < len(expected.host_keys) <= 256
    assert max(map(len, expected.host_keys)) < 100


def test_a_difference_is_short(guest: Path) -> None:
    expected = GuestState("a" * 100_000, frozenset(), frozenset(), frozenset(["", "x" * 100_000]))
    shown = GuestState("b", frozenset(), frozenset(), frozenset())
    assert max(map(len, differences(expected, shown))) <= 300
