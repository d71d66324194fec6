"""Marvin32, the hash of entries in transaction logs."""

from __future__ import annotations

import struct

SEED = 0x82EF4D887A4E55C5
"""Of transaction logs of the registry."""
MASK = 0xFFFFFFFF


def marvin32(data: bytes, seed: int = SEED) -> int:
    low, high = seed & MASK, seed >> 32
    whole = len(data) // 4
    tail = (data[whole * 4 :] + b"\x80").ljust(4, b"\0")
    for word in (*struct.unpack_from(f"<{whole}I", data), int.from_bytes(tail, "little"), 0):
        low = low + word & MASK
        high ^= low
        low = (low << 20 | low >> 12) + high & MASK
        high = (high << 9 | high >> 23) & MASK ^ low
        low = (low << 27 | low >> 5) + high & MASK
        high = (high << 19 | high >> 13) & MASK
    return high << 32 | low
