"""LVM2 metadata, read from physical volumes without privilege: where each logical volume's bytes lie.

Source: LVM2 lib/format_text (layout.h: label, PV header, metadata area header; the text format of `vgcfgbackup`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import cast

from hyper2kvmd.disk.superblock import BlockReader, Range
from hyper2kvmd.model import Segment, Volume

SECTOR = 512
MDA_MAGIC = b" LVM2 x[5A%r0N*>"
METADATA_LIMIT = 16 << 20
"""Bytes of metadata text accepted; LVM's own default area is 1 MiB."""
DEPTH_LIMIT = 8
TOKEN = re.compile(r'#[^\n]*|"(?:\\.|[^"\\])*"|[{}\[\]=,]|[^\s{}\[\]=,#"]+')

Value = int | str | list["Value"]
Section = dict[str, "Value | Section"]


class Damaged(Exception):
    """Metadata that cannot be understood; never leaves this module."""


def logical_volumes(disks: Sequence[BlockReader], physical: tuple[Volume, ...]) -> tuple[Volume, ...]:
    """The logical volumes on the physical volumes of a machine's disks.

    Linear ones get their byte ranges; others, and those of which a part is missing, an obstacle.
    """
    groups: dict[str, tuple[int, str, Section]] = {}
    places: dict[str, Volume] = {}
    for volume in physical:
        try:
            uuid, texts = _physical_volume(Range(disks, volume.segments))
            places[uuid] = volume
            for text in texts:
                name, group = _group(_parse(text))
                seqno = _number(group, "seqno")
                identity = _string(group, "id")
                if identity not in groups or groups[identity][0] < seqno:
                    groups[identity] = (seqno, name, group)
        except (Damaged, struct.error, UnicodeDecodeError, RecursionError):
            continue
    return tuple(lv for _, name, group in groups.values() for lv in _volumes_of(name, group, places))


def _physical_volume(pv: Range) -> tuple[str, list[str]]:
    """UUID (without dashes) and the current metadata text of each metadata area."""
    for sector in range(4):
        label = pv.read(sector * SECTOR, SECTOR)
        if label[:8] == b"LABELONE":
            break
    else:
        raise Damaged
    header = struct.unpack_from("<I", label, 20)[0]
    if header + 40 > SECTOR:
        raise Damaged
    uuid = label[header : header + 32].decode("ascii")
    at, lists = header + 40, [list[tuple[int, int]]()]
    while len(lists) < 3:
        entry = cast("tuple[int, int]", struct.unpack_from("<QQ", label, at))
        at += 16
        if entry == (0, 0):
            lists.append([])
        else:
            lists[-1].append(entry)
    return uuid, [text for offset, size in lists[1] if (text := _metadata(pv, offset, size)) is not None]


def _metadata(pv: Range, start: int, size: int) -> str | None:
    """The text that the first raw location of a metadata area points to; the area is a ring buffer."""
    if size < 2 * SECTOR or start + size > pv.size:
        raise Damaged
    header = pv.read(start, SECTOR)
    offset, length = struct.unpack_from("<QQ", header, 40)
    if header[4:20] != MDA_MAGIC or length == 0:
        return None
    if length > min(METADATA_LIMIT, size - SECTOR) or not SECTOR <= offset < size:
        raise Damaged
    first = min(length, size - offset)
    text = pv.read(start + offset, first)
    if length > first:
        text += pv.read(start + SECTOR, length - first)
    return text.rstrip(b"\0").decode("utf-8")


def _parse(text: str) -> Section:
    tokens = [token for token in TOKEN.findall(text) if not token.startswith("#")]
    section, end = _section(tokens, 0, 0)
    if end != len(tokens):
        raise Damaged
    return section


def _section(tokens: list[str], at: int, depth: int) -> tuple[Section, int]:
    if depth > DEPTH_LIMIT:
        raise Damaged
    found: Section = {}
    while at < len(tokens) and tokens[at] != "}":
        if at + 2 >= len(tokens):
            raise Damaged
        key, sign = tokens[at], tokens[at + 1]
        if sign == "{":
            found[key], at = _section(tokens, at + 2, depth + 1)
            if at >= len(tokens):
                raise Damaged
            at += 1
        elif sign == "=":
            found[key], at = _value(tokens, at + 2, depth + 1)
        else:
            raise Damaged
    return found, at


def _value(tokens: list[str], at: int, depth: int) -> tuple[Value, int]:
    if depth > DEPTH_LIMIT or at >= len(tokens):
        raise Damaged
    word = tokens[at]
    if word != "[":
        if word.startswith('"'):
            return word[1:-1], at + 1
        return (int(word) if re.fullmatch(r"-?\d{1,19}", word) else word), at + 1
    items: list[Value] = []
    at += 1
    while at < len(tokens) and tokens[at] != "]":
        if tokens[at] == ",":
            at += 1
            continue
        item, at = _value(tokens, at, depth + 1)
        items.append(item)
    return items, at + 1


def _group(root: Section) -> tuple[str, Section]:
    for name, value in root.items():
        if isinstance(value, dict):
            return name, value
    raise Damaged


def _number(section: Mapping[str, object], key: str) -> int:
    value = section.get(key)
    if not isinstance(value, int) or value < 0:
        raise Damaged
    return value


def _string(section: Mapping[str, object], key: str) -> str:
    value = section.get(key)
    if not isinstance(value, str):
        raise Damaged
    return value


def _subsection(section: Section, key: str) -> Section:
    value = section.get(key, {})
    if not isinstance(value, dict):
        raise Damaged
    return value


def _volumes_of(name: str, group: Section, places: dict[str, Volume]) -> list[Volume]:
    try:
        extent = _number(group, "extent_size") * SECTOR
        physical = _subsection(group, "physical_volumes")
        starts = {}
        for key in physical:
            pv = _subsection(physical, key)
            starts[key] = (places.get(_string(pv, "id").replace("-", "")), _number(pv, "pe_start"))
        logical = _subsection(group, "logical_volumes")
    except Damaged:
        return []
    found = []
    for lv, section in logical.items():
        if not isinstance(section, dict):
            continue
        status = section.get("status")
        if not isinstance(status, list) or "VISIBLE" not in status:
            continue
        try:
            segments, obstacle = _segments(section, extent, starts)
        except Damaged:
            segments, obstacle = (), "its LVM metadata is damaged"
        first = next((pv.disk for pv, _ in starts.values() if pv is not None), 0)
        found.append(
            Volume(
                kind="lv",
                name=f"{name}/{lv}",
                disk=segments[0].disk if segments else first,
                vg=name,
                lv=lv,
                segments=segments,
                obstacle=obstacle,
            )
        )
    return found


def _segments(
    section: Section, extent: int, starts: Mapping[str, tuple[Volume | None, int]]
) -> tuple[tuple[Segment, ...], str | None]:
    found: list[Segment] = []
    reached = 0
    for index in range(1, _number(section, "segment_count") + 1):
        segment = _subsection(section, f"segment{index}")
        kind = _string(segment, "type")
        stripes = segment.get("stripes", [])
        if kind != "striped" or not isinstance(stripes, list) or len(stripes) != 2:
            return (), f"a segment of type {'striped over several' if kind == 'striped' else kind} cannot be mapped"
        pv_name, first = stripes
        if not isinstance(pv_name, str) or not isinstance(first, int) or first < 0 or pv_name not in starts:
            raise Damaged
        pv, pe_start = starts[pv_name]
        if pv is None:
            return (), "a part of it lies on a disk that is not among the disks of this migration"
        if _number(segment, "start_extent") * extent != reached:
            raise Damaged
        inside = pe_start * SECTOR + first * extent
        length = _number(segment, "extent_count") * extent
        if length == 0 or inside + length > pv.length:
            raise Damaged
        reached += length
        place = pv.segments[0]
        at = place.offset + inside
        if found and (found[-1].disk, found[-1].offset + found[-1].length) == (place.disk, at):
            found[-1] = Segment(disk=place.disk, offset=found[-1].offset, length=found[-1].length + length)
        else:
            found.append(Segment(disk=place.disk, offset=at, length=length))
    return tuple(found), None
