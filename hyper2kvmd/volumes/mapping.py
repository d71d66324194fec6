"""The position of a volume's bytes, as stretches of the machine's disks.

Nesting is flattened: a logical volume on a RAID 1 becomes mirrored stretches, one in a LUKS container becomes encrypted
stretches. Readers and the root helper therefore see two levels at most: joined ranges, and encryption over them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from hyper2kvmd.model.disks import Crypt, Segment, Stretch
from hyper2kvmd.volumes import crypt
from hyper2kvmd.volumes.budget import Budget
from hyper2kvmd.volumes.superblock import BlockReader

Stretches = tuple[Stretch, ...]
LEGS_LIMIT = 4096
"""Of one mirror: all copies are split where any of them is. The root helper accepts 64 for a mount."""


class Unmappable(Exception):
    """Why bytes cannot be addressed, as text to follow a volume's name."""


class Incomplete(Unmappable):
    """Bytes are on a disk that is not there, so the guest cannot start the volume either."""


class OpenDisks:
    """A machine's disks, the budget for reading them, and the volume keys of opened LUKS containers, by UUID."""

    def __init__(self, disks: Sequence[BlockReader], budget: Budget | None = None) -> None:
        self.disks = disks
        self.budget = budget or Budget()
        self.keys: dict[str, bytes] = {}

    def reader(self, stretches: Stretches) -> BlockReader:
        """The bytes of `stretches` in order, decrypted; the containers that they name must be open."""
        return _StretchReader(self, stretches)


class _StretchReader:
    def __init__(self, machine: OpenDisks, stretches: Stretches) -> None:
        self._machine, self._stretches = machine, stretches
        self.size = sum(stretch.length for stretch in stretches)

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        for stretch in self._stretches:
            if offset < stretch.length and length > 0:
                count = min(length, stretch.length - offset)
                parts.append(self._clear(stretch, offset, count))
                offset, length = 0, length - count
            else:
                offset -= min(offset, stretch.length)
        return b"".join(parts)

    def _clear(self, stretch: Stretch, offset: int, length: int) -> bytes:
        how = stretch.crypt
        if how is None:
            return self._raw(stretch, offset, length)
        start, end = offset - offset % how.sector, offset + length + -(offset + length) % how.sector
        data = self._raw(stretch, start, end - start)
        key = self._machine.keys[how.container]
        iv = how.iv + start // crypt.IV_UNIT
        return crypt.decrypt(how.cipher, key, data, iv=iv, sector=how.sector)[offset - start :][:length]

    def _raw(self, stretch: Stretch, offset: int, length: int) -> bytes:
        if stretch.kind != "striped":
            return self._leg(stretch.legs[0], offset, length)
        parts, width = [], len(stretch.legs)
        while length > 0:
            row, inside = divmod(offset, stretch.chunk)
            count = min(length, stretch.chunk - inside)
            parts.append(self._leg(stretch.legs[row % width], row // width * stretch.chunk + inside, count))
            offset, length = offset + count, length - count
        return b"".join(parts)

    def _leg(self, leg: Segment, offset: int, length: int) -> bytes:
        return self._machine.disks[leg.disk].read(leg.offset + offset, length)


# ---------------------------------------------------------------- stretches made of others


def linear(*segments: Segment) -> Stretches:
    """Byte ranges one after the other."""
    return tuple(Stretch(legs=(segment,)) for segment in segments)


def joined(stretches: Iterable[Stretch]) -> Stretches:
    """The same bytes in as few stretches as possible."""
    found: list[Stretch] = []
    for stretch in stretches:
        if found and _continues(found[-1], stretch):
            legs = zip(found[-1].legs, stretch.legs, strict=True)
            longer = tuple(one.with_changes(length=one.length + two.length) for one, two in legs)
            found[-1] = found[-1].with_changes(legs=longer)
        else:
            found.append(stretch)
    return tuple(found)


def _continues(before: Stretch, after: Stretch) -> bool:
    if before.kind != after.kind or before.kind == "striped" or len(before.legs) != len(after.legs):
        return False
    how = before.crypt
    if how is not None:
        how = how.with_changes(iv=how.iv + before.length // crypt.IV_UNIT)
    legs = zip(before.legs, after.legs, strict=True)
    return how == after.crypt and all(
        (one.disk, one.offset + one.length) == (two.disk, two.offset) for one, two in legs
    )


def cut(stretches: Stretches, offset: int, length: int) -> Stretches:
    """The `length` bytes at `offset`. Raises Unmappable, also for a range not fully inside."""
    found = []
    wanted = length
    for stretch in stretches:
        if offset < stretch.length and length > 0:
            count = min(length, stretch.length - offset)
            found.append(_part(stretch, offset, count))
            offset, length = 0, length - count
        else:
            offset -= min(offset, stretch.length)
    if length or wanted <= 0:
        raise Unmappable("it extends beyond the volume that contains it")
    return joined(found)


def _part(stretch: Stretch, offset: int, length: int) -> Stretch:
    if (offset, length) == (0, stretch.length):
        return stretch
    width = 1
    if stretch.kind == "striped":
        width = len(stretch.legs)
        if offset % (stretch.chunk * width) or length % (stretch.chunk * width):
            raise Unmappable("it begins or ends inside a stripe")
    how = stretch.crypt
    if how is not None:
        if offset % how.sector or length % how.sector:
            raise Unmappable("it begins or ends inside an encrypted sector")
        how = how.with_changes(iv=how.iv + offset // crypt.IV_UNIT)
    legs = tuple(
        Segment(disk=leg.disk, offset=leg.offset + offset // width, length=length // width) for leg in stretch.legs
    )
    return stretch.with_changes(legs=legs, crypt=how)


def mirrored(copies: Sequence[Stretches]) -> Stretches:
    """Bytes that each of `copies` contains in full. Raises Unmappable."""
    if len(copies) == 1:
        return copies[0]
    _plain(copies)
    ends = sorted({end for copy in copies for end in itertools.accumulate(stretch.length for stretch in copy)})
    if len(ends) * len(copies) > LEGS_LIMIT:
        raise Unmappable("its copies consist of too many pieces")
    if {sum(stretch.length for stretch in copy) for copy in copies} != {ends[-1]}:
        raise Unmappable("its copies are of different lengths")
    return joined(
        Stretch(kind="mirror", legs=tuple(cut(copy, start, end - start)[0].legs[0] for copy in copies))
        for start, end in itertools.pairwise((0, *ends))
    )


def striped(parts: Sequence[Stretches], chunk: int) -> Stretches:
    """Bytes on each of `parts` in turn, `chunk` bytes at a time. Raises Unmappable."""
    if len(parts) == 1:
        return parts[0]
    _plain(parts)
    legs = tuple(stretch.legs[0] for part in parts for stretch in part)
    if len(legs) != len(parts):
        raise Unmappable("its stripes are scattered")
    if chunk <= 0 or {leg.length for leg in legs} != {legs[0].length} or legs[0].length % chunk:
        raise Unmappable("its stripes are of different lengths")
    return (Stretch(kind="striped", legs=legs, chunk=chunk),)


def _plain(parts: Sequence[Stretches]) -> None:
    """Require plain ranges: the parts of a RAID must not be RAIDs or encrypted themselves."""
    for stretch in itertools.chain.from_iterable(parts):
        if stretch.crypt is not None:
            raise Unmappable("it is a RAID of encrypted devices")
        if stretch.kind != "linear":
            raise Unmappable("it is a RAID of RAIDs")


def encrypted(stretches: Stretches, how: Crypt) -> Stretches:
    """`stretches`, decrypted; `how` is for their first byte. Raises Unmappable."""
    found, at = [], how.iv
    for stretch in stretches:
        if stretch.crypt is not None:
            raise Unmappable("it is encrypted twice")
        if stretch.length % how.sector:
            raise Unmappable("one of its encrypted sectors is split")
        found.append(stretch.with_changes(crypt=how.with_changes(iv=at)))
        at += stretch.length // crypt.IV_UNIT
    return tuple(found)
