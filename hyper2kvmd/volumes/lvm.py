"""LVM2 metadata, read from physical volumes without privilege: the position of each logical volume's bytes.

Source: LVM2 lib/format_text (layout.h: label, PV header, metadata area header; the text format of `vgcfgbackup`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import cast

from hyper2kvmd.model.disks import Stretch, Volume
from hyper2kvmd.volumes import md
from hyper2kvmd.volumes.budget import Budget, Exhausted
from hyper2kvmd.volumes.mapping import (
    Incomplete,
    OpenDisks,
    Stretches,
    Unmappable,
    cut,
    joined,
    mirrored,
    striped,
)
from hyper2kvmd.volumes.superblock import BlockReader
from hyper2kvmd.yaml_source import shown

SECTOR = 512
MDA_MAGIC = b" LVM2 x[5A%r0N*>"
METADATA_LIMIT = 16 << 20
"""Bytes of metadata text accepted from all physical volumes, without repetitions. LVM's default area is 1 MiB."""
BYTES_A_SECOND = 20 << 20
"""Of metadata text, which is read for each physical volume."""
DEPTH_LIMIT = 8
TOKEN = re.compile(r'#[^\n]*|"(?:\\.|[^"\\])*"|[{}\[\]=,]|[^\s{}\[\]=,#"]+')

UNEVEN = {"NOTSYNCED", "REBUILD"}
"""Status of a RAID 1, or of one of its copies, if they were never synchronised."""

Value = int | str | list["Value"]
Section = dict[str, "Value | Section"]


class Damaged(Exception):
    """Metadata is invalid; never leaves this module."""


def logical_volumes(machine: OpenDisks, physical: Iterable[Volume]) -> list[Volume]:
    """The logical volumes on a machine's physical volumes.

    Those that cannot be mapped or miss a part have an obstacle.
    """
    groups: dict[str, tuple[int, str, Section]] = {}
    members: dict[str, Volume] = {}
    texts = _Texts()
    for volume in physical:
        try:
            uuid, found_texts = _physical_volume(machine.reader(volume.stretches), machine.budget)
            members[uuid] = volume
            for text in filter(texts.accept, found_texts):
                name, group = _group(_parse(text))
                seqno = _number(group, "seqno")
                identity = _string(group, "id")
                if identity not in groups or groups[identity][0] < seqno:
                    groups[identity] = (seqno, name, group)
        except (Damaged, Exhausted, struct.error, UnicodeDecodeError, RecursionError):
            continue
    found: list[Volume] = []
    for _, name, section in groups.values():
        with suppress(Damaged):
            found += _volumes_of(name, _Group(machine, section, members))
    return found


class _Texts:
    """The metadata texts to parse: each once, and at most METADATA_LIMIT together."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._size = 0

    def accept(self, text: str) -> bool:
        if text in self._seen or self._size + len(text) > METADATA_LIMIT:
            return False
        self._seen.add(text)
        self._size += len(text)
        return True


def _physical_volume(pv: BlockReader, budget: Budget) -> tuple[str, list[str]]:
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
    return uuid, [text for offset, size in lists[1] if (text := _metadata(pv, offset, size, budget)) is not None]


def _metadata(pv: BlockReader, start: int, size: int, budget: Budget) -> str | None:
    """The text that the first raw location of a metadata area points to; the area is a ring buffer."""
    if size < 2 * SECTOR or start + size > pv.size:
        raise Damaged
    header = pv.read(start, SECTOR)
    offset, length = struct.unpack_from("<QQ", header, 40)
    if header[4:20] != MDA_MAGIC or length == 0:
        return None
    if length > min(METADATA_LIMIT, size - SECTOR) or not SECTOR <= offset < size:
        raise Damaged
    budget.spend(length / BYTES_A_SECOND)
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


def _words(section: Mapping[str, object], key: str) -> list[str]:
    value = section.get(key, [])
    if not isinstance(value, list):
        raise Damaged
    return [word for word in value if isinstance(word, str)]


def _volumes_of(name: str, group: _Group) -> Iterator[Volume]:
    """Ends with the first volume for which no pieces are left."""
    for lv in group.logical:
        section = _subsection(group.logical, lv)
        if "VISIBLE" not in _words(section, "status"):
            continue
        try:
            yield _volume(name, lv, group, joined(group.stretches(lv, DEPTH_LIMIT)))
        except Unmappable as reason:
            incomplete = isinstance(reason, Incomplete)
            yield _volume(name, lv, group, obstacle=str(reason)).with_changes(incomplete=incomplete)
        except Damaged:
            yield _volume(name, lv, group, obstacle="its LVM metadata is damaged")
        except Exhausted as reason:
            yield _volume(name, lv, group, obstacle=str(reason))
            return


def _volume(name: str, lv: str, group: _Group, stretches: Stretches = (), obstacle: str | None = None) -> Volume:
    return Volume(
        kind="lv",
        name=f"{name}/{lv}",
        disk=stretches[0].legs[0].disk if stretches else group.first_disk,
        vg=name,
        lv=lv,
        stretches=stretches,
        obstacle=obstacle,
    )


def _physical_name(section: Section) -> str:
    """The UUID of a physical volume, and the device that it was when LVM wrote this: the guest chose both texts."""
    uuid, device = _string(section, "id"), section.get("device")
    return shown(f"{uuid} ({device})" if isinstance(device, str) and device.startswith("/dev/") else uuid)


class _Group:
    """A volume group's metadata and its available physical volumes. All methods raise Damaged."""

    def __init__(self, machine: OpenDisks, group: Section, members: Mapping[str, Volume]) -> None:
        self._machine, self._budget = machine, machine.budget
        self._extent = _number(group, "extent_size") * SECTOR
        self.logical = _subsection(group, "logical_volumes")
        self._physical: dict[str, tuple[Volume | None, int]] = {}
        self._names: dict[str, str] = {}
        physical = _subsection(group, "physical_volumes")
        for key in physical:
            section = _subsection(physical, key)
            self._names[key] = _physical_name(section)
            left_behind = "MISSING" in _words(section, "flags")
            member = None if left_behind else members.get(_string(section, "id").replace("-", ""))
            self._physical[key] = (member, _number(section, "pe_start") * SECTOR)
        self.first_disk = next((volume.disk for volume, _ in self._physical.values() if volume), 0)
        self._snapshots = self._read_snapshots()

    def _read_snapshots(self) -> dict[str, str]:
        """Logical volumes that are a snapshot or have one, each with the obstacle."""
        found = {}
        for section in self.logical.values():
            if not isinstance(section, dict):
                raise Damaged
            first = _subsection(section, "segment1")
            if first.get("type") == "snapshot":
                found[str(first.get("origin"))] = "it has a snapshot, which a write would invalidate"
                found[str(first.get("cow_store"))] = "it is a snapshot"
        return found

    def stretches(self, lv: str, depth: int) -> Stretches:
        """The position of the bytes of logical volume `lv`. Raises Unmappable, and Exhausted.

        A nested volume is mapped again for each volume that contains it, so the work could grow exponentially.
        """
        self._budget.map_pieces(1)
        if depth == 0:
            raise Damaged
        if lv in self._snapshots:
            raise Unmappable(self._snapshots[lv])
        section = _subsection(self.logical, lv)
        status = _words(section, "status")
        found: list[Stretch] = []
        reached = 0
        for index in range(1, _number(section, "segment_count") + 1):
            segment = _subsection(section, f"segment{index}")
            length = _number(segment, "extent_count") * self._extent
            if _number(segment, "start_extent") * self._extent != reached or length == 0:
                raise Damaged
            reached += length
            pieces = self._segment(segment, status, length, depth)
            self._budget.map_pieces(len(pieces))
            found += pieces
        return tuple(found)

    def _segment(self, segment: Section, status: list[str], length: int, depth: int) -> Stretches:
        kind = _string(segment, "type")
        if kind == "striped":
            areas = segment.get("stripes")
            if not isinstance(areas, list) or not areas or len(areas) % 2 or length % (len(areas) // 2):
                raise Damaged
            self._budget.map_pieces(len(areas))
            size = length // (len(areas) // 2)
            parts = [self._area(name, first, size, depth) for name, first in zip(areas[::2], areas[1::2], strict=True)]
            return striped(parts, _number(segment, "stripe_size") * SECTOR if len(parts) > 1 else 0)
        if kind == "raid1":
            return self._raid1(_words(segment, "raids"), status, length, depth)
        raise Unmappable(f"a segment of type {kind} cannot be mapped")

    def _area(self, name: Value, first: Value, length: int, depth: int) -> Stretches:
        """`length` bytes from extent `first` of a physical volume or of another logical one."""
        if not isinstance(name, str) or not isinstance(first, int) or first < 0:
            raise Damaged
        if name not in self._physical:
            return cut(self.stretches(name, depth - 1), first * self._extent, length)
        volume, start = self._physical[name]
        if volume is None:
            raise Incomplete(
                f"a part of it lies on the physical volume {self._names[name]}, which is not among the disks of this"
                " migration"
            )
        return cut(volume.stretches, start + first * self._extent, length)

    def _raid1(self, names: list[str], status: list[str], length: int, depth: int) -> Stretches:
        """The copies of a RAID 1, if their superblocks show that they are the same."""
        metadata, images = names[::2], names[1::2]
        if not images or len(metadata) != len(images):
            raise Damaged
        self._budget.map_pieces(len(names))
        try:
            return self._copies(metadata, images, status, length, depth)
        except Incomplete as reason:  # LVM starts it without that copy
            raise Unmappable(str(reason)) from None

    def _copies(self, metadata: list[str], images: list[str], status: list[str], length: int, depth: int) -> Stretches:
        marked = [status, *(_words(_subsection(self.logical, image), "status") for image in images)]
        differ = (
            "its copies were never synchronised"
            if any(UNEVEN.intersection(words) for words in marked)
            else md.difference([self._machine.reader(self.stretches(name, depth - 1)) for name in metadata])
        )
        if differ:
            raise Unmappable(differ)
        return mirrored([cut(self.stretches(image, depth - 1), 0, length) for image in images])
