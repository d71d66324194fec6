"""CRC-32C (Castagnoli) for the headers of VHDX; slow, meant for a few KiB.

Source: RFC 3720, appendix B.4.
"""

from __future__ import annotations

POLYNOMIAL = 0x82F63B78
"""Bit-reversed."""


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


TABLE = tuple(_entry(byte) for byte in range(256))


def crc32c(data: bytes | bytearray) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
