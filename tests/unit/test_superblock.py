"""What no repair works in is still called by its name: superblocks made by hand, at the offsets of their formats."""

from __future__ import annotations

import struct

import pytest

from hyper2kvmd.volumes.superblock import identify

SIZE = 4 << 20


class Bytes:
    def __init__(self, *pieces: tuple[int, bytes]) -> None:
        self._data = bytearray(SIZE)
        self.size = SIZE
        for offset, data in pieces:
            self._data[offset : offset + len(data)] = data

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        return bytes(self._data[offset : offset + length])


@pytest.mark.parametrize(
    ("offset", "magic", "name"),
    [
        (0x10034, b"ReIsEr2Fs", "reiserfs"),
        (0x8000, b"JFS1", "jfs"),
        (0x1055C, struct.pack("<I", 0x19540119), "ufs"),
        (0x255C, struct.pack("<I", 0x00011954), "ufs"),
        (0x400, struct.pack("<I", 0xF2F52010), "f2fs"),
        (0x400, b"H+\0\4", "hfsplus"),
        (0x20, b"NXSB", "apfs"),
        (0x100000, struct.pack("<I", 0xC001D00D), "VMFS_volume_member"),
        (0x20000 + 7 * 1024, struct.pack("<Q", 0x00BAB10C), "zfs_member"),
        (0x3FC00, struct.pack(">Q", 0x00BAB10C), "zfs_member"),
        (3, b"-FVE-FS-", "BitLocker"),
        (0, b"", "unknown"),
    ],
)
def test_magic_numbers(offset: int, magic: bytes, name: str) -> None:
    assert identify(Bytes((offset, magic))).type == name


def test_uuid_of_an_old_array_as_mdadm_writes_it() -> None:
    """Format 0.90 keeps the first of four numbers apart from the others, at the end of the member."""
    block = struct.pack("<IIII", 0xA92B4EFC, 0, 90, 0) + struct.pack("<II", 0, 0x11223344) + bytes(28)
    block += struct.pack("<III", 0x55667788, 0x99AABBCC, 0xDDEEFF00)
    found = identify(Bytes((SIZE - (64 << 10), block)))
    assert (found.type, found.uuid) == ("linux_raid_member", "11223344-5566-7788-99aa-bbccddeeff00")
