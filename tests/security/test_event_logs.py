"""Event logs of hostile guests: read soon, and shown without control characters."""

from __future__ import annotations

import signal
import struct

import pytest

from hyper2kvmd.guest.windows.boot_proof.event_log import CHUNK, CHUNK_HEADER, read_event_log
from hyper2kvmd.guest.windows.boot_proof.traces import LOG, WindowsTraces, new_since
from tests.fuzz.harness import bounded
from tests.support.event_logs import event_log

SECONDS = 10
"""None takes a tenth of this time."""
FRAGMENT = b"\x0f\x01\x01\0"
LONG_NAME = 14_000
"""Characters."""
HEAD = 24
"""Bytes of a template before its tokens."""


def chunk(token: bytes, first: int, *, name: bytes = b"") -> bytes:
    """Records without end, each of which names another place among the tokens as its template."""
    places = range(CHUNK - 36_000, CHUNK - 2000 - len(name), len(token))
    body = bytearray(b"ElfChnk\0".ljust(CHUNK_HEADER, b"\0"))
    for number, place in enumerate(places, first):
        xml = FRAGMENT + struct.pack("<BBIII", 12, 1, 0, place + -HEAD % len(token), 0)
        size = 24 + len(xml) + 4
        if len(body) + size > places.start:
            break
        body += struct.pack("<4sIQQ", b"**\0\0", size, number, 0) + xml + struct.pack("<I", size)
    body = body.ljust(places.start, b"\0")
    return bytes(body + token * len(places)).ljust(CHUNK - len(name), b"\xff") + name


def names(count: int) -> bytes:
    """Attributes that all have the same long name."""
    name = struct.pack("<IHH", 0, 0, LONG_NAME) + b"x\0" * LONG_NAME + b"\0\0"
    token = b"\x06" + struct.pack("<I", CHUNK - len(name))
    return b"".join(chunk(token, 1 + 1000 * number, name=name) for number in range(count))


def tokens(count: int) -> bytes:
    return b"".join(chunk(b"\x08\xff\xff", 1 + 1000 * number) for number in range(count))


@pytest.mark.parametrize(
    "chunks",
    [names(20), tokens(10), tokens(200)],
    ids=["a long name again and again", "templates without end", "records without end"],
)
def test_a_hostile_event_log_is_read_soon(chunks: bytes) -> None:
    data = event_log() + chunks
    with bounded():
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        log = read_event_log(data, 0)
    assert log is not None and log.highest > 500


def test_a_hostile_result_of_the_first_boot_writes_no_control_characters() -> None:
    before = WindowsTraces(highest=None, result_size=0)
    shown = new_since(before, lambda path, _: b"" if path == LOG else b"\x1b[2J\x07done\r\n")
    assert shown and all(line.isprintable() for line in shown)
