"""A control group whose processes may not send to one address, by a BPF program, as with IPAddressDeny= of systemd."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

BPF = 321
"""The system call on x86-64."""
PROG_LOAD, PROG_ATTACH = 5, 8
CGROUP_SKB, EGRESS = 8, 1
LOAD_BYTES = 26
DESTINATION = 16
"""Offset in an IPv4 header."""


def _instruction(code: int, registers: int, offset: int, value: int) -> bytes:
    return struct.pack("<BBhi", code, registers, offset, value)


def _program(address: str) -> bytes:
    (wanted,) = struct.unpack("<i", socket.inet_aton(address))
    return b"".join(
        (
            _instruction(0xB7, 2, 0, DESTINATION),  # r2 = offset
            _instruction(0xBF, 0xA3, 0, 0),  # r3 = r10
            _instruction(0x07, 3, 0, -4),  # r3 -= 4
            _instruction(0xB7, 4, 0, 4),  # r4 = length
            _instruction(0x85, 0, 0, LOAD_BYTES),
            _instruction(0x61, 0xA1, -4, 0),  # r1 = the destination
            _instruction(0xB7, 0, 0, 1),  # r0 = pass
            _instruction(0x56, 1, 1, wanted),  # unless it is the address:
            _instruction(0xB7, 0, 0, 0),  # r0 = drop
            _instruction(0x95, 0, 0, 0),
        )
    )


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = int(libc.syscall(BPF, command, buffer, 128))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _load(address: str) -> int:
    program, licence = ctypes.create_string_buffer(_program(address)), ctypes.create_string_buffer(b"GPL")
    places = (len(program) // 8, ctypes.addressof(program), ctypes.addressof(licence))
    return _bpf(PROG_LOAD, struct.pack("<IIQQIIQII16sII", CGROUP_SKB, *places, 0, 0, 0, 0, 0, b"", 0, EGRESS))


@contextlib.contextmanager
def denying(address: str) -> Iterator[Path]:
    """The file into which a process writes 0 to become subject to it."""
    with tempfile.TemporaryDirectory(prefix="h2k-test-cgroups-") as folder:
        subprocess.run(["mount", "-t", "cgroup2", "none", folder], check=True)
        group = Path(folder) / f"h2k-test-{os.getpid()}"
        group.mkdir()
        try:
            program, handle = _load(address), os.open(group, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _bpf(PROG_ATTACH, struct.pack("<IIII", handle, program, EGRESS, 0))
            finally:
                os.close(handle)
                os.close(program)
            yield group / "cgroup.procs"
        finally:
            group.rmdir()
            subprocess.run(["umount", folder], check=True)
