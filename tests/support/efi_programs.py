"""EFI programs, made up."""

from __future__ import annotations

import struct

X64, IA32, AA64 = 0x8664, 0x014C, 0xAA64
"""Machines, as PE files name them."""


def program(machine: int = X64, tag: bytes = b"") -> bytes:
    header = struct.pack("<4sHHIIIHH", b"PE\0\0", machine, 0, 0, 0, 0, 0, 0)
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + header + tag
