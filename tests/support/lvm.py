"""Physical volumes of LVM, written without its tools."""

from __future__ import annotations

import struct

MIB = 1 << 20
EXTENT = MIB
DATA = MIB
IDS = tuple(
    f"{letter * 6}-{letter * 4}-{letter * 4}-{letter * 4}-{letter * 4}-{letter * 4}-{letter * 6}"
    for letter in "ABCDEFGH"
)


def lv(name: str, segment: str, *, extents: int = 4, status: str = '"READ", "WRITE", "VISIBLE"') -> str:
    return f"""
    {name} {{ id = "x" status = [{status}] segment_count = 1
      segment1 {{ start_extent = 0 extent_count = {extents} {segment} }} }}"""


def group(logical: str, *, name: str = "vg", physical: int = len(IDS), flags: str = "") -> str:
    """The metadata of a volume group; `flags` are those of all physical volumes but the first."""
    volumes = "".join(
        f'pv{n} {{ id = "{IDS[n]}" pe_start = {DATA // 512} {flags if n else ""} }}\n' for n in range(physical)
    )
    return f"""{name} {{ id = "{name}" seqno = 1 extent_size = {EXTENT // 512}
      physical_volumes {{ {volumes} }} logical_volumes {{ {logical} }} }}"""


def physical_volume(number: int, text: str) -> bytearray:
    """Ten MiB of a disk with a label, one metadata area at 4 KiB and its extents from 1 MiB on."""
    disk = bytearray(10 * MIB)
    header = struct.pack("<32sQ", IDS[number].replace("-", "").encode(), len(disk))
    header += struct.pack("<6Q", DATA, 0, 0, 0, 4096, DATA - 4096) + bytes(16)
    disk[512 : 512 + 32] = struct.pack("<8sQII8s", b"LABELONE", 1, 0, 32, b"LVM2 001")
    disk[544 : 544 + len(header)] = header
    raw = text.encode() + b"\0"
    area = struct.pack("<I16sIQQQQII", 0, b" LVM2 x[5A%r0N*>", 1, 4096, DATA - 4096, 512, len(raw), 0, 0)
    disk[4096 : 4096 + len(area)] = area
    disk[4608 : 4608 + len(raw)] = raw
    return disk
