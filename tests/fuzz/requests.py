"""Damages requests to the root helper: each must be understood or refused by name, never end in an exception.

What comes before the kernel is asked for anything runs here: no privilege is needed. `python -m tests.fuzz.requests
--count 100000`; what it finds it prints with the seed that makes it again: `--seed N --count 1`.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import sys
from typing import Any

from hyper2kvmd.helper import helper
from tests.fuzz import harness

NUMBERS = (*harness.NUMBERS, -1, -512, 4096, 65536, 1 << 61, 1 << 62, (1 << 63) - 1, 1 << 64)
WORDS = ("", "linear", "mirror", "striped", "ext4", "\ud800", "x\n")
VALUES: tuple[Any, ...] = (*WORDS, None, True, False, 0.5, float("nan"), [], {}, [[]])
JUNK = (b"", b"[" * 9000, b"9" * 5000, b" " * 16384, b"\xff")
MOST = 2000
"""Values in a request that is damaged once more."""
FIELDS = ("verb", "job", "table", "legs", "fd", "offset", "length", "kind", "chunk", "crypt", "key", "uid", "options")
CRYPT = {"key": 2, "cipher": "aes-xts-plain64", "sector": 512, "iv": 0}


def leg(fd: int, offset: int, length: int) -> dict[str, int]:
    return {"fd": fd, "offset": offset, "length": length}


def samples() -> tuple[tuple[dict[str, Any], int], ...]:
    """Sound requests of every kind, each with how many descriptors it brings."""
    one = {"kind": "linear", "chunk": 0, "legs": [leg(0, 0, 1 << 20)]}
    two = [leg(0, 0, 1 << 20), leg(1, 4096, 1 << 20)]
    mount = {"verb": "mount", "job": "a.1", "transport": "file", "fstype": "ext4", "read_only": False}
    made: tuple[tuple[dict[str, Any], int], ...] = (
        ({"verb": "probe", "job": "7", "fstypes": ["ext4", "xfs"]}, 0),
        ({**mount, "table": [one], "crypt": [], "nbd": []}, 1),
        ({**mount, "table": [{"kind": "mirror", "chunk": 0, "legs": two}], "crypt": [], "nbd": []}, 2),
        ({**mount, "table": [{"kind": "striped", "chunk": 65536, "legs": two}], "crypt": [CRYPT], "nbd": []}, 3),
        ({**mount, "transport": "nbd", "table": [one], "crypt": [], "nbd": [{"size": 1 << 20, "flags": 1}]}, 1),
    )
    return made


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in `value`, with each of its keys."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def damage(request: dict[str, Any], pick: random.Random) -> bytes:
    """One to four changes of the request's values, and at times of its text."""
    changed = json.loads(json.dumps(request))
    for _ in range(pick.choice((0, 1, 1, 1, 2, 4))):
        found = places(changed)
        if not 0 < len(found) < MOST:
            break
        holder, key = pick.choice(found)
        match pick.randrange(6):
            case 0 | 1:
                holder[key] = pick.choice((*NUMBERS, pick.randrange(-(1 << 65), 1 << 65)))
            case 2:
                holder[key] = pick.choice(VALUES)
            case 3:
                del holder[key]
            case 4:
                if isinstance(holder, list):
                    holder.extend(holder * pick.choice((1, 70)))
                else:
                    holder[pick.choice(FIELDS)] = pick.choice((*NUMBERS, *VALUES))
            case 5:
                holder[key] = json.loads(json.dumps(pick.choice(found)[0]))
    text = bytearray(json.dumps(changed).encode())
    if pick.randrange(4) == 0:
        at = pick.randrange(len(text))
        text[at : at + pick.choice((0, 1, 8))] = pick.choice(JUNK)
    return bytes(text[: 3 * helper.REQUEST_BYTES])


def attempt(seed: int, corpus: tuple[tuple[dict[str, Any], int], ...]) -> str:
    pick = random.Random(seed)  # noqa: S311
    request, count = pick.choice(corpus)
    handles = [0] * pick.choice((count, count, count, count, 0, 1, 65, 80))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds: list[int] = []
    with ours, theirs:
        socket.send_fds(ours, [damage(request, pick)], handles)
        try:
            asked, fds = helper.receive(theirs)
            if isinstance(asked, helper.Mount):
                table, crypts = helper.parse_table(asked, fds)
                _ = [helper.shaped(entry, helper.Export) for entry in asked.nbd]
                sound(table, crypts, len(fds))
        except helper.Refusal as refusal:
            if not (refusal.message.isprintable() and len(refusal.message) < 500):
                raise ValueError(f"not one plain line: {refusal!r}") from refusal
            return refusal.code
        finally:
            for fd in fds:
                os.close(fd)
    return asked.verb


def sound(table: list[helper.Stretch], crypts: list[helper.Crypt], count: int) -> None:
    """Raise AssertionError unless what is mapped are whole sectors, apart from each other, of what came."""
    legs = sorted(one for stretch in table for one in stretch.legs)
    used = {one.fd for one in legs} | {crypt.key for crypt in crypts}
    assert used == set(range(count)) and len(crypts) in (0, len(table))
    for one in legs:
        assert one.length > 0 and one.offset >= 0 and one.offset + one.length < 1 << 62
        assert one.offset % 512 == one.length % 512 == 0
    for before, after in itertools.pairwise(legs):
        assert before.fd != after.fd or before.offset + before.length <= after.offset
    for crypt in crypts:
        assert crypt.cipher in helper.CIPHERS and crypt.key not in {one.fd for one in legs}


def fuzz(seed: int, count: int) -> harness.Outcome:
    corpus = samples()
    return harness.fuzz(lambda number, _: attempt(number, corpus), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=100_000))
