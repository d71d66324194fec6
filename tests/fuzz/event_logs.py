"""Damages event logs of Windows: each must be read, soon and in little memory, with no more records than it has.

`python -m tests.fuzz.event_logs --count 100000`; what it finds it prints with the seed that makes it again:
`--seed N --count 1`.
"""

from __future__ import annotations

import random
import struct
import sys

from hyper2kvmd.guest.windows.boot_proof.event_log import read_event_log
from tests.fuzz import harness
from tests.support.event_logs import booted, event_log

HIGHEST = 14
SAMPLES = (event_log(booted(1), booted(8)), event_log((*booted(1), *booted(8))), event_log(booted(8), booted(1), ()))
MARKS = (b"**\0\0", b"ElfChnk\0", b"\x0f\x01\x01\0", b"\x0c\x01", b"\x0e", b"\x06", b"\x41\xff\xff")
TOKENS = bytes((*range(16), *range(0x41, 0x48)))


def damage(data: bytes, pick: random.Random) -> bytes:
    """A few numbers, tokens or bytes changed, mostly in a record."""
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 1, 2, 4, 8))):
        at = pick.randrange(len(changed))
        if pick.randrange(6):
            found = changed.find(pick.choice(MARKS), pick.randrange(6000))
            at = max(0, min(found + pick.randrange(-8, 60), len(changed) - 8))
        number = pick.choice((*harness.NUMBERS, pick.randrange(1 << 16)))
        match pick.randrange(5):
            case 0:
                changed[at] ^= 1 << pick.randrange(8)
            case 1:
                changed[at] = pick.choice(TOKENS)
            case 2:
                changed[at : at + 2] = struct.pack("<H", number & 0xFFFF)
            case 3:
                changed[at : at + 4] = struct.pack("<I", number)
            case 4:
                other = pick.randrange(len(changed) - 8)
                changed[at : at + 8] = changed[other : other + 8]
    return bytes(changed[: pick.randrange(len(changed))] if not pick.randrange(10) else changed)


def attempt(seed: int) -> str:
    pick = random.Random(seed)  # noqa: S311
    data = damage(pick.choice(SAMPLES), pick)
    known = pick.choice((None, 0, 5, HIGHEST))
    log = read_event_log(data, known)
    if log is None:
        return "no log"
    numbers = [event.number for event in log.new]
    assert numbers == sorted(numbers)
    assert not numbers or numbers[-1] <= log.highest
    assert len(numbers) <= data.count(b"**\0\0")
    assert all(len(event.provider) <= 200 for event in log.new)
    if any(event.event_id is None for event in log.new):
        return "partly understood"
    return "new" if numbers else "nothing new"


def fuzz(seed: int, count: int) -> harness.Outcome:
    return harness.fuzz(lambda number, _: attempt(number), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=100_000))
