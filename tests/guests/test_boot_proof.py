"""The boot proof's other ways: guests that cannot be heard, that have several disks, or that would reach out."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from tests.guests.altered import (
    GRUB_CFG,
    HEALTHY,
    MISSING,
    alter,
    altered,
    boot_it,
    edit,
    hide_kernel_lines,
    image_of,
    mount_a_missing_disk,
    mute,
    unit,
)
from tests.support.benches import hardware_for

pytestmark = pytest.mark.slow

REST_SECONDS = 60.0
"""Enough for a healthy guest to write everything back, with a missing disk waited for during 3 s."""
SHUT_DOWN_ONCE = "rm /etc/systemd/system/multi-user.target.wants/once.service; sleep 10; systemctl poweroff"
ANSWER_THE_POWER_BUTTON = """
for event in /sys/class/input/event*; do
    grep -q 'Power Button' $event/device/name && head -c 24 /dev/input/${event##*/} >/dev/null && systemctl poweroff
done
"""
NETWORKD = "systemd/network/10-all.network"
REACH_OUT = """
/lib/systemd/systemd-networkd-wait-online --any --timeout=60
address=$(grep -o '10[.]0[.]2[.]15' /proc/net/fib_trie | head -1)
timeout 5 bash -c 'echo hello >/dev/udp/10.0.2.2/{port}'
timeout 5 bash -c 'echo hello >/dev/tcp/10.0.2.2/{port}' && end=connected || end=isolated
echo "it is $(cat /sys/class/net/e*/address) $address $end" >/dev/ttyS0
"""
BEFORE_LOGIN = {"After": "systemd-networkd.service", "Before": "getty.target serial-getty@ttyS0.service"}


def boot_for_real(raw: Path) -> None:
    """Until the guest shuts itself down."""
    argv = ["timeout", "280", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"]
    argv += ["-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none"]
    argv += ["-drive", f"if=virtio,format=raw,file={raw}"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def test_a_guest_that_nobody_hears_is_proven_by_what_this_boot_left_and_not_by_an_earlier_one(
    guest_folder: Path,
) -> None:
    guest = altered(HEALTHY, guest_folder, mute, hide_kernel_lines, unit("once", SHUT_DOWN_ONCE))
    boot_for_real(guest.disks[0].path)
    booted = boot_it(guest, silence_seconds=REST_SECONDS)
    assert any("wtmp" in line and "tty1" in line for line in booted.evidence)
    assert any("its journal" in line for line in booted.evidence)
    assert any("none was found that can be edited" in line for line in booted.evidence)

    alter(guest, mount_a_missing_disk)
    with pytest.raises(MigrationFailed) as caught:
        boot_it(guest, silence_seconds=REST_SECONDS)
    assert caught.value.code == "boot-unproven"


def test_a_guest_that_nobody_hears_is_proven_by_its_power_button(guest_folder: Path) -> None:
    guest = altered(HEALTHY, guest_folder, mute, hide_kernel_lines, unit("power", ANSWER_THE_POWER_BUTTON))
    booted = boot_it(guest)
    assert any("power button" in line for line in booted.evidence)
    assert any("its journal" in line for line in booted.evidence)


def test_a_root_that_is_not_there_is_named(guest_folder: Path) -> None:
    def misname_root(root: Path) -> None:
        text = (root / GRUB_CFG).read_text()
        uuid = text.partition("root=UUID=")[2].split()[0]
        edit(root / GRUB_CFG, f"root=UUID={uuid}", f"root=UUID={MISSING}")

    with pytest.raises(MigrationFailed) as caught:
        boot_it(altered(HEALTHY, guest_folder, mute, misname_root))
    assert caught.value.code == "boot-failed"
    assert "initramfs shell" in caught.value.message
    assert f"UUID={MISSING} does not exist" in caught.value.message


def test_a_second_disk_is_there_for_the_proof_and_stays_untouched(guest_folder: Path) -> None:
    """The same guest without it stops in emergency mode (tests/integration/test_boot.py)."""
    data = guest_folder / "data.raw"
    with data.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-U", MISSING, data], check=True)
    before = data.read_bytes()
    guest = altered(HEALTHY, guest_folder, mute, mount_a_missing_disk)
    booted = boot_it(image_of(guest.disks[0].path, data))
    assert any("web01 asked for a login" in line for line in booted.evidence)
    assert data.read_bytes() == before


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """TCP and UDP on one port of the host's loopback, where 10.0.2.2 would lead."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        tcp.listen()
        for sock in (tcp, udp):
            sock.setblocking(False)
        yield tcp, udp, tcp.getsockname()[1]


def test_the_guest_has_its_mac_and_an_address_and_reaches_nothing_of_the_host(guest_folder: Path) -> None:
    def use_dhcp(root: Path) -> None:
        (root / "etc" / NETWORKD).write_text("[Match]\nName=e*\n[Network]\nDHCP=ipv4\n")
        wants = root / "etc/systemd/system/sysinit.target.wants"
        (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")

    mac = "00:50:56:ab:cd:ef"
    with listening() as (tcp, udp, port):
        out = unit("out", REACH_OUT.format(port=port), "oneshot", **BEFORE_LOGIN)
        guest = altered(HEALTHY, guest_folder, mute, use_dhcp, out)
        booted = boot_it(guest, hardware=hardware_for("bios", mac))
        assert f"it is {mac} 10.0.2.15 isolated" in "\n".join(booted.console_tail)
        with pytest.raises(BlockingIOError):
            tcp.accept()
        with pytest.raises(BlockingIOError):
            udp.recv(100)
