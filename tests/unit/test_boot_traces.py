"""Which records of wtmp prove a boot. (Journals are proven by guests that boot.)"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hyper2kvmd.guest.linux.boot_proof.traces import new_since, traces
from tests.support.guest_on_disk import put, tree_of

RECORD = struct.Struct("<h2xi32s4s32s256s2h3i16s20x")
"""utmp(5) on amd64: type, pid, line, id, user, host, exit status, session, seconds, microseconds, address."""
SECONDS = 1795424400


def record(kind: int, pid: int, line: str, identity: str, user: str) -> bytes:
    words = (word.encode() for word in (line, identity, user, "6.1.0" if identity == "~~" else ""))
    return RECORD.pack(kind, pid, *words, 0, 0, 0, SECONDS, 0, b"")


BOOT = record(2, 0, "~", "~~", "reboot")
EMERGENCY = record(1, 49, "~", "~~", "runlevel")
RUNLEVEL = record(1, 53, "~", "~~", "runlevel")
LOGIN = record(6, 471, "tty1", "tty1", "LOGIN")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((BOOT, RUNLEVEL), ("its wtmp shows that it entered runlevel 5",)),
        ((BOOT, LOGIN, LOGIN), ("its wtmp shows that logins were offered on tty1",)),
        ((BOOT, EMERGENCY), ()),
        ((BOOT,), ()),
    ],
)
def test_what_was_added_to_wtmp(tmp_path: Path, lines: tuple[bytes, ...], words: tuple[str, ...]) -> None:
    wtmp = put(tmp_path, "/var/log/wtmp", b"".join((BOOT, RUNLEVEL, LOGIN)))
    with tree_of(tmp_path) as tree:
        before = traces(tree)
        assert new_since(before, tree) == ()
        wtmp.write_bytes(wtmp.read_bytes() + b"".join(lines))
        assert new_since(before, tree) == words


def test_a_wtmp_begun_anew_counts_from_its_start(tmp_path: Path) -> None:
    wtmp = put(tmp_path, "/var/log/wtmp", b"".join((BOOT, RUNLEVEL, LOGIN)))
    with tree_of(tmp_path) as tree:
        before = traces(tree)
        wtmp.write_bytes(LOGIN)
        assert new_since(before, tree) == ("its wtmp shows that logins were offered on tty1",)


def test_a_damaged_journal_proves_nothing(tmp_path: Path) -> None:
    text = b"MESSAGE=Reached target multi-user.target - Multi-User System."
    journal = put(tmp_path, "/var/log/journal/1/system.journal", b"")
    with tree_of(tmp_path) as tree:
        before = traces(tree)
        for data in (b"LPKS", text, b"\0" * 39 + text, b"\0" * 512):
            journal.write_bytes(data)
            assert new_since(before, tree) == ()
