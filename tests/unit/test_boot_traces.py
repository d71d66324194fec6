"""wtmp, written by util-linux's own tool: which records prove a boot. (Journals are proven by guests that boot.)"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hyper2kvmd.proof.traces import new_since, traces
from tests.support.guest_on_disk import put, tree_of

BOOT = "[2] [00000] [~~  ] [reboot  ] [~           ] [6.1.0               ] [0.0.0.0        ] [{}]"
EMERGENCY = "[1] [00049] [~~  ] [runlevel] [~           ] [6.1.0               ] [0.0.0.0        ] [{}]"
RUNLEVEL = "[1] [00053] [~~  ] [runlevel] [~           ] [6.1.0               ] [0.0.0.0        ] [{}]"
LOGIN = "[6] [00471] [tty1] [LOGIN   ] [tty1        ] [                    ] [0.0.0.0        ] [{}]"
TIME = "2026-11-23T09:00:00,000000+00:00"


def records(*lines: str) -> bytes:
    text = "\n".join(line.format(TIME) for line in lines) + "\n"
    return subprocess.run(["utmpdump", "--reverse"], input=text.encode(), capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((BOOT, RUNLEVEL), ("its wtmp shows that it entered runlevel 5",)),
        ((BOOT, LOGIN, LOGIN), ("its wtmp shows that logins were offered on tty1",)),
        ((BOOT, EMERGENCY), ()),
        ((BOOT,), ()),
    ],
)
def test_what_was_added_to_wtmp(tmp_path: Path, lines: tuple[str, ...], words: tuple[str, ...]) -> None:
    wtmp = put(tmp_path, "/var/log/wtmp", records(BOOT, RUNLEVEL, LOGIN))
    with tree_of(tmp_path) as tree:
        before = traces(tree)
        assert new_since(before, tree) == ()
        wtmp.write_bytes(wtmp.read_bytes() + records(*lines))
        assert new_since(before, tree) == words


def test_a_wtmp_begun_anew_counts_from_its_start(tmp_path: Path) -> None:
    wtmp = put(tmp_path, "/var/log/wtmp", records(BOOT, RUNLEVEL, LOGIN))
    with tree_of(tmp_path) as tree:
        before = traces(tree)
        wtmp.write_bytes(records(LOGIN))
        assert new_since(before, tree) == ("its wtmp shows that logins were offered on tty1",)


def test_a_damaged_journal_proves_nothing(tmp_path: Path) -> None:
    text = b"MESSAGE=Reached target multi-user.target - Multi-User System."
    journal = put(tmp_path, "/var/log/journal/1/system.journal", b"")
    with tree_of(tmp_path) as tree:
        before = traces(tree)
        for data in (b"LPKS", text, b"\0" * 39 + text, b"\0" * 512):
            journal.write_bytes(data)
            assert new_since(before, tree) == ()
