"""Transaction logs of a hive (LOG1, LOG2): finds the entries that the hive still needs, and applies them.

Source: Windows registry file format specification, "New format" and "Multiple transaction log files". As Windows does,
an entry that was not written completely ends its log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyper2kvmd.guest.windows.registry import base_block
from hyper2kvmd.guest.windows.registry.base_block import BaseBlock, read_base_block
from hyper2kvmd.guest.windows.registry.marvin import marvin32
from hyper2kvmd.guest.windows.registry.refusals import damaged, unfit

ENTRY = struct.Struct("<4sIIIIIQQ")
SIGNATURE = b"HvLE"
LARGEST_HIVE = 512 << 20
LARGEST_LOG = 64 << 20
"""Windows writes a hive long before its log has this size."""
LARGEST_EMPTY = 64 << 20
"""Bytes by which a hive may grow without content for them in its logs, where Windows writes what is new in it."""


@dataclass(frozen=True)
class Entry:
    sequence: int
    flags: int
    bins_size: int
    pages: tuple[tuple[int, int, int], ...]
    """Offset in the bins, offset in the log, length."""


@dataclass(frozen=True)
class Log:
    data: bytes
    block: BaseBlock
    entries: tuple[Entry, ...]
    """In the order of their sequence numbers, without gaps."""


@dataclass(frozen=True)
class Replayed:
    data: bytearray
    block: BaseBlock
    entries: int
    """How many were applied."""


def replay(hive: str, primary: bytes, logs: Sequence[bytes]) -> Replayed:
    """The hive with all entries applied that it lacks, complete. Raises RegistryLogUnfit and RegistryDamaged."""
    block = read_base_block(primary)
    found = _needed(hive, block if block and block.valid else None, _logs(hive, logs))
    if not found and (block is None or not block.valid):
        raise damaged(hive, "its header is damaged, and no transaction log has a copy of it")
    if not found:
        raise unfit(hive, _why_not(logs))
    if block is None or not block.valid:
        primary = _restored(hive, primary, found[-1])
    data = bytearray(primary)
    since = block.secondary_sequence if block and block.valid else None
    applied = 0
    last = found[0].entries[0]
    logged = sum(len(log.data) for log in found)
    for log in found:
        for entry in log.entries:
            if base_block.LENGTH + entry.bins_size > len(primary) + logged + LARGEST_EMPTY:
                raise unfit(hive, f"its log makes it {entry.bins_size} bytes large, and lacks most of them")
            if since is None or not _is_before(entry.sequence, since):
                _apply(data, log.data, entry)
                last, applied = entry, applied + 1
    base_block.write_clean(data, last.sequence, last.bins_size, last.flags)
    return Replayed(data, base_block.parsed(data), applied)


def _restored(hive: str, primary: bytes, log: Log) -> bytes:
    """With the base block's copy in the log in place of one that is damaged."""
    if len(primary) < base_block.LENGTH:
        raise damaged(hive, f"it has {len(primary)} bytes, which is less than its header")
    return log.data[: base_block.SECTOR] + primary[base_block.SECTOR :]


def _apply(data: bytearray, log: bytes, entry: Entry) -> None:
    missing = base_block.LENGTH + entry.bins_size - len(data)
    if missing > 0:
        data += bytes(missing)
    for to, at, length in entry.pages:
        start = base_block.LENGTH + to
        data[start : start + length] = log[at : at + length]


def _needed(hive: str, block: BaseBlock | None, logs: list[Log]) -> list[Log]:
    """The logs with entries that the hive lacks, in order. Without a base block, all that the newest log continues."""
    if block is not None:
        logs = [log for log in logs if not _is_before(log.entries[-1].sequence, block.secondary_sequence)]
    if len(logs) == 2 and _is_before(logs[1].entries[0].sequence, logs[0].entries[0].sequence):
        logs.reverse()
    if len(logs) < 2 or logs[1].entries[0].sequence == _after(logs[0].entries[-1].sequence):
        return logs
    if block is None:
        return logs[1:]
    first, second = logs[0].entries[-1].sequence, logs[1].entries[0].sequence
    raise unfit(hive, f"Windows did not write it completely, and its logs lack what is between {first} and {second}")


def _logs(hive: str, logs: Sequence[bytes]) -> list[Log]:
    """Those of the new kind with at least one entry."""
    found = []
    for data in logs:
        block = read_base_block(data)
        if block is None or not block.complete or block.file_type != base_block.LOG:
            continue
        if len(data) > LARGEST_LOG:
            raise unfit(hive, f"a transaction log has {len(data)} bytes; at most {LARGEST_LOG} are supported")
        entries = tuple(_entries(data, block.primary_sequence))
        if entries:
            found.append(Log(data, block, entries))
    if len(found) > 2:
        raise unfit(hive, f"{len(found)} transaction logs have entries; Windows writes two")
    return found


def _entries(data: bytes, sequence: int) -> Iterator[Entry]:
    """Complete entries, the first of them with this sequence number."""
    at = base_block.SECTOR
    while (size := _entry_size(data, at)) and (entry := _entry(data, at, size)) and entry.sequence == sequence:
        yield entry
        at, sequence = at + size, _after(sequence)


def _entry_size(data: bytes, at: int) -> int:
    """0 if none begins there, or its header is damaged."""
    if at + ENTRY.size > len(data) or data[at : at + 4] != SIGNATURE:
        return 0
    _, size, _, _, _, _, _, header_hash = ENTRY.unpack_from(data, at)
    fits = size % base_block.SECTOR == 0 and ENTRY.size <= size <= len(data) - at
    return size if fits and marvin32(data[at : at + 32]) == header_hash else 0


def _entry(data: bytes, at: int, size: int) -> Entry | None:
    _, _, flags, sequence, bins_size, count, body_hash, _ = ENTRY.unpack_from(data, at)
    if marvin32(data[at + ENTRY.size : at + size]) != body_hash:
        return None
    if bins_size % base_block.BIN_ALIGNMENT or not 0 < bins_size <= LARGEST_HIVE or count * 8 > size - ENTRY.size:
        return None
    pages, source = [], at + ENTRY.size + 8 * count
    for to, length in struct.iter_unpack("<II", data[at + ENTRY.size : source]):
        if to + length > bins_size or source + length > at + size:
            return None
        pages.append((to, source, length))
        source += length
    return Entry(sequence, flags, bins_size, tuple(pages))


def _why_not(logs: Sequence[bytes]) -> str:
    blocks = [block for block in map(read_base_block, logs) if block]
    fact = "Windows did not write it completely"
    if any(block.file_type in (base_block.OLD_LOG, base_block.VERY_OLD_LOG) for block in blocks):
        return f"{fact}, and its transaction log has the old format of Windows 7 and Server 2008 R2 (DIRT)"
    if not any(logs):
        return f"{fact}, and its transaction logs are missing"
    return f"{fact}, and no entry of its transaction logs continues it"


def _after(sequence: int) -> int:
    return sequence + 1 & 0xFFFFFFFF


def _is_before(one: int, other: int) -> bool:
    """Sequence numbers begin again at 0 after 2^32-1."""
    return one - other & 0xFFFFFFFF > 0x7FFFFFFF
