"""The files of an ISO 9660 image, with names of Rock Ridge or Joliet.

Sources: ECMA-119; SUSP and RRIP 1.12 (IEEE P1281, P1282); the Joliet specification of Microsoft. The image may be
made to deceive: the number, depth and bytes of directories are limited, and none is read twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.drivers.faults import shown, unreadable

SECTOR = 2048
DESCRIPTORS_AT, MOST_DESCRIPTORS = 16, 32
"""Sectors."""
MAGIC = b"CD001"
PRIMARY, SUPPLEMENTARY, END = 1, 2, 255
SPACE_AT = 80
"""Of the number of sectors in the volume, in a descriptor."""
BLOCK_SIZE_AT, ESCAPES_AT, ROOT_AT, ROOT_SIZE = 128, 88, 156, 34
JOLIET = (b"%/@", b"%/C", b"%/E")
RECORD = struct.Struct("<BB4s4s4s4s7sBBB4sB")
"""Length, extended attributes, extent in both byte orders, size the same, time, flags, unit, gap, volume, name."""
DIRECTORY, ASSOCIATED, CONTINUED = 2, 4, 0x80
MOST_DIRECTORIES, MOST_FILES, DEEPEST = 4000, 20_000, 12
ALL_DIRECTORIES = 16 << 20
"""Bytes."""
LONGEST_NAME = 255
MOST_CONTINUATIONS = 8
SUSP_START, RR_NAME, RR_LINK, RR_CHILD, RR_MOVED, SUSP_MORE, SUSP_END = b"SP", b"NM", b"SL", b"CL", b"RE", b"CE", b"ST"
RR_PACKED = b"ZF"
NAME_CONTINUES, NAME_SPECIAL = 1, 6
Names = Literal["rock ridge", "joliet", "plain"]


@dataclass(frozen=True)
class IsoExtent:
    """Bytes in the image."""

    offset: int
    length: int


@dataclass(frozen=True)
class _Record:
    name: str
    extent: IsoExtent
    flags: int
    is_left_out: bool
    """A link, a packed file, or the old place of a moved directory."""
    child: int | None
    """The sector of a moved directory."""


@dataclass(frozen=True)
class _Volume:
    root: IsoExtent
    names: Names
    skipped: int = 0
    """Bytes before the system-use fields of each record."""


def is_iso(file: SourceFile) -> bool:
    return file.read(DESCRIPTORS_AT * SECTOR + 1, len(MAGIC)) == MAGIC


def stated_bytes(file: SourceFile) -> int:
    """The size of the image by its first descriptor; 0 if that is cut off."""
    return int.from_bytes(file.read(DESCRIPTORS_AT * SECTOR + SPACE_AT, 4), "little") * SECTOR


def read_files(file: SourceFile) -> dict[str, IsoExtent]:
    """The regular files by their paths. Raises MigrationFailed (`virtio-win-unreadable`, `disk-read-failed`)."""
    return _IsoReader(file).files()


class _IsoReader:
    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._volume = self._choose_volume()
        self._files: dict[str, IsoExtent] = {}
        self._seen: set[int] = set()
        self._bytes = 0

    def files(self) -> dict[str, IsoExtent]:
        pending = [("", self._volume.root, 0)]
        while pending:
            path, extent, depth = pending.pop()
            if depth > DEEPEST:
                raise self._fault(f"its directories are more than {DEEPEST} levels deep")
            for record in self._directory(extent, path):
                child = f"{path}/{record.name}" if path else record.name
                if record.flags & DIRECTORY or record.child is not None:
                    pending.append((child, self._moved(record), depth + 1))
                else:
                    self._add(child, record.extent)
        return self._files

    def _add(self, path: str, extent: IsoExtent) -> None:
        if extent.offset + extent.length > self._file.size:
            raise self._fault(
                f"the image is incomplete: {shown(path)} ends at byte {extent.offset + extent.length} of "
                f"{self._file.size}"
            )
        self._files.setdefault(path, extent)
        if len(self._files) > MOST_FILES:
            raise self._fault(f"it has more than {MOST_FILES} files")

    def _moved(self, record: _Record) -> IsoExtent:
        """Where a directory is; its own first record has the size of a moved one."""
        if record.child is None:
            return record.extent
        data = self._read(IsoExtent(record.child * SECTOR, SECTOR), "a directory")
        return self._parse(data, 0, data[0]).extent if data[0] else IsoExtent(record.child * SECTOR, 0)

    def _directory(self, extent: IsoExtent, path: str) -> Iterator[_Record]:
        what = f"the directory {shown(path) or '/'}"
        if extent.offset in self._seen:
            raise self._fault(f"{what} is in itself or in two directories")
        self._seen.add(extent.offset)
        self._bytes += extent.length
        if len(self._seen) > MOST_DIRECTORIES:
            raise self._fault(f"it has more than {MOST_DIRECTORIES} directories")
        if self._bytes > ALL_DIRECTORIES:
            raise self._fault(f"its directories have more than {ALL_DIRECTORIES} bytes")
        data = self._read(extent, what)
        for sector in range(0, len(data), SECTOR):
            at, end = sector, min(sector + SECTOR, len(data))
            while at < end and data[at]:
                if at + data[at] > end or data[at] < RECORD.size + 1:
                    raise self._fault(f"{what} has a damaged entry at byte {extent.offset + at}")
                record = self._parse(data, at, data[at])
                at += data[at]
                if record.name and not record.is_left_out:
                    yield record

    def _parse(self, data: bytes, at: int, length: int) -> _Record:
        if length < RECORD.size + 1 or at + length > len(data):
            raise self._fault("a directory has a damaged entry")
        fields = RECORD.unpack_from(data, at)
        (sector,), (size,) = struct.unpack("<I", fields[2]), struct.unpack("<I", fields[4])
        flags, name_length = fields[7], fields[11]
        start = at + RECORD.size
        raw = data[start : start + name_length]
        if len(raw) != name_length or start + name_length > at + length:
            raise self._fault("a directory has a name that is cut off")
        extent = IsoExtent((sector + fields[1]) * SECTOR, size)
        if raw in (b"\0", b"\1"):
            return _Record("", extent, flags, False, None)
        left_out = bool(flags & (ASSOCIATED | CONTINUED)) or bool(fields[8] or fields[9])
        if self._volume.names != "rock ridge":
            return _Record(self._checked(self._own_name(raw)), extent, flags, left_out, None)
        used = start + name_length + (1 - name_length % 2) + self._volume.skipped
        return self._rock_ridge(raw, data[used : at + length], extent, flags, left_out)

    def _rock_ridge(self, raw: bytes, area: bytes, extent: IsoExtent, flags: int, left_out: bool) -> _Record:
        name, child = b"", None
        for signature, body in self._system_use(area):
            if signature == RR_NAME and body and not body[0] & NAME_SPECIAL:
                name += body[1:]
            elif signature in (RR_LINK, RR_MOVED, RR_PACKED):
                left_out = True
            elif signature == RR_CHILD and len(body) >= 4:
                (child,) = struct.unpack_from("<I", body)
        if len(name) > LONGEST_NAME:
            raise self._fault("a file name has more than 255 bytes")
        text = name.decode("utf-8", errors="replace") if name else self._own_name(raw)
        return _Record(self._checked(text), extent, flags, left_out, child)

    def _system_use(self, area: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Signature and content of each field, also of those that continue elsewhere."""
        for _ in range(MOST_CONTINUATIONS):
            more: IsoExtent | None = None
            at = 0
            while at + 4 <= len(area):
                signature, length = area[at : at + 2], area[at + 2]
                if length < 4 or at + length > len(area) or signature == SUSP_END:
                    break
                body = area[at + 4 : at + length]
                if signature == SUSP_MORE and len(body) >= 24:
                    sector, _, offset, _, size, _ = struct.unpack_from("<I4sI4sI4s", body)
                    more = IsoExtent(sector * SECTOR + offset, min(size, SECTOR))
                yield signature, body
                at += length
            if more is None:
                return
            area = self._read(more, "a directory")
        raise self._fault("the fields of a directory entry continue without end")

    def _own_name(self, raw: bytes) -> str:
        """Without the version of the file."""
        joliet = self._volume.names == "joliet"
        text = raw.decode("utf-16-be", errors="replace") if joliet else raw.decode("ascii", errors="replace")
        name = text.partition(";")[0]
        return name if joliet else name.rstrip(".")

    def _checked(self, name: str) -> str:
        if not name or name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
            raise self._fault(f"it has a file with the name {shown(name)!r}, which is not a plain name")
        return name

    def _choose_volume(self) -> _Volume:
        """The one with Rock Ridge names, else with those of Joliet, else the primary one."""
        plain: _Volume | None = None
        joliet: _Volume | None = None
        for number in range(DESCRIPTORS_AT, DESCRIPTORS_AT + MOST_DESCRIPTORS):
            descriptor = self._file.read(number * SECTOR, SECTOR)
            if len(descriptor) < SECTOR or descriptor[1:6] != MAGIC or descriptor[0] == END:
                break
            if descriptor[0] == PRIMARY and plain is None:
                plain = _Volume(self._root(descriptor), "plain")
            elif descriptor[0] == SUPPLEMENTARY and descriptor[ESCAPES_AT : ESCAPES_AT + 3] in JOLIET:
                joliet = _Volume(self._root(descriptor), "joliet")
        if plain is None:
            raise self._fault("this image has no ISO 9660 file system; one with UDF only is not supported")
        skipped = self._rock_ridge_offset(plain.root)
        if skipped is not None:
            return _Volume(plain.root, "rock ridge", skipped)
        return joliet or plain

    def _root(self, descriptor: bytes) -> IsoExtent:
        (block,) = struct.unpack_from("<H", descriptor, BLOCK_SIZE_AT)
        if block != SECTOR:
            raise self._fault(f"the image has blocks of {block} bytes; only {SECTOR} are supported")
        _, extra, sector, _, size, *_ = RECORD.unpack_from(descriptor, ROOT_AT)
        return IsoExtent((int.from_bytes(sector, "little") + extra) * SECTOR, int.from_bytes(size, "little"))

    def _rock_ridge_offset(self, root: IsoExtent) -> int | None:
        """From the field SP of the first record of the root directory."""
        data = self._file.read(root.offset, SECTOR)
        area = data[ROOT_SIZE : data[0]] if data else b""
        return area[6] if area[:2] == SUSP_START and area[4:6] == b"\xbe\xef" and len(area) >= 7 else None

    def _read(self, extent: IsoExtent, what: str) -> bytes:
        data = self._file.read(extent.offset, extent.length)
        if len(data) < extent.length:
            raise self._fault(f"the image is incomplete: {what} is beyond its end")
        return data

    def _fault(self, fact: str) -> MigrationFailed:
        return unreadable(self._file.path, fact)
