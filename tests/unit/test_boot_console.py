"""What counts as news on a console, and what a console line means."""

from __future__ import annotations

import re

import pytest

from hyper2kvmd.guest.boot import FAILED_UNIT, LOGIN, SIGNS, SPOKE, TARGET, Console


def test_a_repeated_line_that_only_counts_up_is_no_progress() -> None:
    console = Console()
    console.feed(b"\x1b[K[\x1b[0;31m*\x1b[0m] A start job is running for /dev/sda5 (1s / no limit)\r")
    silent = console.silent_seconds
    console.feed(b"\x1b[K[ *** ] A start job is running for /dev/sda5 (23s / no limit)\r")
    assert console.silent_seconds > silent
    heard_last = console.silent_seconds
    console.feed(b"[  OK  ] Reached target Swaps.\r\n")
    assert console.silent_seconds < heard_last


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


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("(initramfs) ", "initramfs shell"),
        ("dracut:/# ", "dracut"),
        ("[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", "panicked"),
        ("Give root password for maintenance", "emergency mode"),
        ("You are in emergency mode. After logging in, type", "emergency mode"),
        ("grub rescue> ", "GRUB's own shell"),
        ("No bootable device.", "nothing to boot"),
        ("BdsDxe: No bootable option or device was found.", "nothing to boot"),
    ],
)
def test_each_dead_end_is_known(line: str, fact: str) -> None:
    facts = [sign.fact for sign in SIGNS if re.search(sign.pattern, f"before\n{line}\n", re.MULTILINE)]
    assert len(facts) == 1
    assert fact in facts[0]


def test_a_healthy_boot_matches_no_dead_end() -> None:
    text = "Booting from Hard Disk...\nGRUB loading.\nBegin: Loading essential drivers ... done.\nweb01 login: "
    assert not [sign for sign in SIGNS if re.search(sign.pattern, text, re.MULTILINE)]


def test_evidence_is_read_past_colours_and_kernel_lines() -> None:
    console = Console()
    console.feed(
        b"[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System.\r\n"
    )
    console.feed(b"[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39mfoo.service\x1b[0m - Foo.\r\n")
    console.feed(b"web01 login: [   15.5] random: crng init done\r\n")
    login = LOGIN.search(console.text)
    assert login is not None and login[1] == "web01"
    assert TARGET.findall(console.text) == ["Multi-User System"]
    assert FAILED_UNIT.findall(console.text) == ["foo.service - Foo"]
    assert SPOKE.search(console.text)
