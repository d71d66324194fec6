"""What counts as news on a console, and what a console line means."""

from __future__ import annotations

import re

import pytest

from hyper2kvmd.proof.console import (
    LOGIN,
    REACHED,
    SIGNS,
    SPOKE,
    Console,
)


def test_a_repeated_line_that_only_counts_up_is_no_progress() -> None:
    console = Console()
    console.feed(b"\x1b[K[\x1b[0;31m*\x1b[0m] A start job is running for /dev/sda5 (1s / no limit)\r")
    heard = console.heard
    console.feed(b"\x1b[K[ *** ] A start job is running for /dev/sda5 (23s / no limit)\r")
    assert console.heard == heard
    console.feed(b"[  OK  ] Reached target Swaps.\r\n")
    assert console.heard > heard


def test_an_escape_sequence_split_over_two_reads_disappears() -> None:
    console = Console()
    console.feed(b"web01 lo\x1b[0;")
    console.feed(b"1mgin: ")
    assert LOGIN.search(console.text)


def test_the_text_kept_is_bounded_and_ends_with_the_newest() -> None:
    console = Console()
    for number in range(40_000):
        console.feed(b"[%9d] noise noise noise\n" % number)
    assert len(console.text) < 1 << 20
    assert console.tail[-1] == "[    39999] noise noise noise"


def test_what_a_guest_prints_to_fool_a_terminal_is_gone() -> None:
    console = Console()
    console.feed(b"\x1b]0;title\x07\x9b31m" + b"long " * 200 + b"\x1b[2J\x7fend\r\n")
    (line,) = console.tail
    assert line.isprintable()
    assert len(line) <= 300


@pytest.mark.parametrize("start", ["", "[FAILED] Failed to start "])
@pytest.mark.parametrize(
    "text", ["\n", " ", "Reached target", "Please enter ", "dracut", "\n[rootfs ", "\x1b[0;", "\x1b]0;", "[DEPEND] "]
)
def test_no_line_makes_the_search_slow(start: str, text: str) -> None:
    """It would take minutes."""
    console = Console()
    console.feed(f"{start}{text * (200_000 // len(text))}x".encode())
    assert console.dead_end() is None
    assert console.evidence() == ()
    console.failed_units()
    console.complaints()


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("(initramfs) ", "initramfs shell"),
        ("initramfs emergency recovery shell launched. Type 'exit' to continue boot", "initramfs shell"),
        ("[rootfs /]# ", "initramfs shell"),
        ("fsck failed. Mounting root device read-only -- exiting to /bin/sh", "initramfs shell"),
        ("dracut:/# ", "dracut"),
        ("Entering emergency mode. Exit the shell to continue.", "dracut"),
        ("dracut: FATAL: No or empty root= argument", "dracut"),
        ("[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", "panicked"),
        ("Give root password for maintenance", "emergency mode"),
        ("You are in emergency mode. After logging in, type", "emergency mode"),
        ("Welcome to emergency mode! After logging in, type", "emergency mode"),
        ("*** Dropping you to a shell; the system will reboot", "emergency mode"),
        ("[!!!!!!] Failed to mount API filesystems. Freezing execution.", "froze"),
        ("grub rescue> ", "GRUB's own shell"),
        ("No bootable device.", "nothing to boot"),
        ("BdsDxe: No bootable option or device was found.", "nothing to boot"),
        ("Please enter passphrase for disk QEMU_HARDDISK (luks-1234): ", "passphrase"),
        ("Please unlock disk sda3_crypt: ", "passphrase"),
    ],
)
def test_each_dead_end_is_known(line: str, fact: str) -> None:
    text = f"before\n{line}\n"
    facts = [sign.fact for sign in SIGNS if re.search(sign.pattern, text, re.MULTILINE)]
    assert len(facts) == 1
    assert fact in facts[0]
    assert not REACHED.search(text)
    assert not LOGIN.search(text)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("[  OK  ] Reached target Multi-User System.", "Multi-User System"),
        ("[  OK  ] Reached target multi-user.target - Multi-User System.", "multi-user.target"),
        ("[  OK  ] Reached target graphical.target.", "graphical.target"),
        ("[   41.2] cloud-init[900]: Cloud-init v. 22.4.2 finished at Mon, 23 Nov 2026 09:00:00 +0000.", "Cloud-init"),
        ("INIT: Entering runlevel: 2", "runlevel: 2"),
        (" * Starting local ... [ ok ]", "local"),
        ("\t\tEntering non-interactive startup", "non-interactive"),
    ],
)
def test_each_end_of_a_boot_is_known(line: str, name: str) -> None:
    console = Console()
    console.feed(f"before\r\n{line}\r\n".encode())
    assert REACHED.search(console.text)
    assert name in " ".join(console.evidence())
    assert console.dead_end() is None


@pytest.mark.parametrize(
    "line", ["[  OK  ] Reached target getty.target - Login Prompts.", "INIT: Entering runlevel: 6", "login:"]
)
def test_what_emergency_mode_and_a_shutdown_say_as_well_is_no_end_of_a_boot(line: str) -> None:
    console = Console()
    console.feed(f"{line}\r\n".encode())
    assert console.evidence() == ()
    assert not LOGIN.search(console.text)


def test_a_boot_loader_is_not_the_guest() -> None:
    assert not SPOKE.search("Welcome to GRUB!\nLoading Linux 6.1.0 ...\nLoading initial ramdisk ...\n")
    assert SPOKE.search("Welcome to Debian GNU/Linux 12 (bookworm)!")


def test_a_healthy_boot_matches_no_dead_end() -> None:
    console = Console()
    console.feed(b"Booting from Hard Disk...\nGRUB loading.\nBegin: Loading essential drivers ... done.\nweb01 login: ")
    assert console.dead_end() is None


def test_evidence_is_read_past_colours_and_kernel_lines() -> None:
    console = Console()
    console.feed(b"[    0.0] Linux version 6.1.0-41-cloud-amd64 (gcc)\r\n")
    console.feed(
        b"[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System.\r\n"
    )
    console.feed(b"[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39mfoo.service\x1b[0m - Foo.\r\n")
    console.feed(b"web01 login: [   15.5] random: crng init done\r\n")
    assert console.evidence() == (
        "its kernel 6.1.0-41-cloud-amd64 started from a virtio disk",
        "on its serial console it reached: multi-user.target",
        "web01 asked for a login on its serial console",
    )
    assert console.failed_units() == ("foo.service - Foo",)
    assert SPOKE.search(console.text)
