"""Damages registry hives and their transaction logs: each must be read and edited or refused, soon, in little memory.

An edit of a damaged hive is in its result, or it is refused. `python -m tests.fuzz.hives --count 100000`; what it finds
it prints with the seed that makes it again: `--seed N --count 1`.
"""

from __future__ import annotations

import random
import struct
import sys
from itertools import islice

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.registry import Editor, Hive, Key, RegistryEdit, Value, reg_text
from tests.fuzz import harness
from tests.support import hives
from tests.support.hives import Node, dword, sz

CODES = {"registry-damaged", "registry-log-unfit", "registry-edit-invalid"}
WALKED = 2000
"""Keys that are read of each hive."""
SIGNATURES = (b"nk", b"vk", b"sk", b"lh", b"lf", b"li", b"ri", b"db", b"hbin", b"HvLE", b"regf", b"DIRT")
KINDS = {b"lh": 5, b"lf": 3, b"li": 4}
"""Kinds of lists, and versions of the format in which they are tried."""
PATHS = ("", "Select", "Services", r"Services\disk", r"Services\service03", r"Services\new\below", "Data", "漢字")


def sample(kind: bytes, minor: int, *, logged: bool) -> bytes:
    services = {f"service{number:02}": Node({"Start": dword(number)}) for number in range(10)}
    services["disk"] = Node({"": sz("default"), "Group": sz("SCSI miniport")}, {"Parameters": Node()}, kind, b"class")
    data = Node({"large": (3, bytes(20_000)), "long": (7, b"a\0" * 100), "odd": (99, b"12345")})
    keys = {"Select": Node({"Current": dword(1)}), "Services": Node({}, services, kind), "Data": data, "漢字": Node()}
    if logged:
        keys["Logged"] = Node({"text": sz("what Windows had logged")})
    return hives.hive(Node({}, keys, kind), minor=minor, leaf=4)


SAMPLES = {kind: (sample(kind, minor, logged=False), sample(kind, minor, logged=True)) for kind, minor in KINDS.items()}


def damage(data: bytes, pick: random.Random) -> bytes:
    """A few numbers, bytes or signatures changed, anywhere or behind a signature."""
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 1, 2, 4, 8))):
        at = pick.randrange(len(changed))
        if pick.randrange(4):
            found = changed.find(pick.choice(SIGNATURES), at)
            at = max(0, min(found + pick.randrange(-4, 80), len(changed) - 8)) if found >= 0 else at
        number = pick.choice((*harness.NUMBERS, pick.randrange(len(changed)), pick.randrange(len(changed)) // 8 * 8))
        match pick.randrange(6):
            case 0:
                changed[at] ^= 1 << pick.randrange(8)
            case 1:
                changed[at : at + 2] = struct.pack("<H", number & 0xFFFF)
            case 2 | 3:
                changed[at : at + 4] = struct.pack("<I", number)
            case 4:
                other = pick.randrange(len(changed))
                changed[at : at + 4] = changed[other : other + 4]
            case 5:
                signature = pick.choice(SIGNATURES)
                changed[at : at + len(signature)] = signature
    return bytes(changed)


def summed(data: bytes, pick: random.Random) -> bytes:
    """Most damage is that of someone who can compute a checksum."""
    if len(data) < 512 or not pick.randrange(4):
        return data
    return data[:508] + struct.pack("<I", hives.checksum(data)) + data[512:]


def with_logs(before: bytes, after: bytes, pick: random.Random) -> tuple[bytes, list[bytes]]:
    """A hive that Windows did not write completely, with one or two logs; any of it damaged."""
    size = len(after) - 4096
    pages = hives.differing_pages(before, after)
    if pick.randrange(2):
        pages = [(at, damage(page, pick)) for at, page in pages]
    if not pick.randrange(4):
        pages.append((pick.choice((*harness.NUMBERS, size)) & 0xFFFFFFFF, bytes(pick.choice((0, 512, 4096)))))
    if not pick.randrange(8):
        size = pick.choice((*harness.NUMBERS, 1 << 30, (1 << 29) + 4096))
    entries = [hives.entry(8 + index, size, [page], index) for index, page in enumerate(pages)]
    cut = pick.randrange(len(entries) + 1)
    logs = [hives.log(before, 8, entries[:cut]), hives.log(before, 8 + cut, entries[cut:], pick.choice((6, 6, 6, 1)))]
    logs = [damage(log, pick) if not pick.randrange(4) else log for log in logs]
    pick.shuffle(logs)
    return hives.marked(before, 8, 7), logs


def walk(hive: Hive) -> None:
    """Keys and values of a hive, up to a limit."""
    keys: list[Key] = [hive.root]
    for key in keys:
        for value in islice(key.values(), WALKED):
            assert isinstance((value.text(), value.texts(), value.number()), tuple)
        keys.extend(islice(key.subkeys(), WALKED - len(keys)))


def edit(hive: Hive, pick: random.Random) -> tuple[tuple[RegistryEdit, ...], bytes]:
    editor = Editor(hive)
    for _ in range(pick.randrange(1, 6)):
        path = pick.choice(PATHS)
        match pick.randrange(5):
            case 0 if path:
                editor.delete_key(path)
            case 1:
                editor.delete_value(path, pick.choice(("", "Start", "large")))
            case _:
                data = bytes(pick.choice((0, 4, 5, 300, 20_000)))
                editor.set(path, Value(pick.choice(("", "Start", "large", "new")), 3, data))
    return editor.changes, editor.bytes()


def attempt(seed: int) -> str:
    pick = random.Random(seed)  # noqa: S311
    before, after = SAMPLES[pick.choice(list(SAMPLES))]
    logs: list[bytes] = []
    if pick.randrange(2):
        before, logs = with_logs(before, after, pick)
    if not logs or not pick.randrange(3):
        before = summed(damage(before, pick), pick)
    try:
        hive = Hive.parse(before, logs, name="SYSTEM")
        walk(hive)
        changes, written = edit(hive, pick)
    except MigrationFailed as failure:
        if not (failure.message.isprintable() and len(failure.message) < 1000 and failure.code in CODES):
            raise ValueError(f"not one plain line: {failure!r}") from failure
        return failure.code
    assert all(line.isprintable() for line in reg_text("HKEY_LOCAL_MACHINE\\SYSTEM", changes).splitlines())
    require_edits(Hive.parse(written), changes)
    return "replayed" if hive.replayed else "read"


def require_edits(hive: Hive, changes: tuple[RegistryEdit, ...]) -> None:
    """Raise AssertionError unless the values are those of the edits."""
    for each in changes:
        key = hive.find(each.path)
        if each.after is not None:
            assert key is not None and key.value(each.name) == each.after


def fuzz(seed: int, count: int) -> harness.Outcome:
    return harness.fuzz(lambda number, _: attempt(number), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=100_000))
