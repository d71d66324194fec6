"""ISO 9660 images by the tests' own hand, with names of Rock Ridge, of Joliet, of both or of neither."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

SECTOR = 2048
FIRST = 19
"""The first sector behind the volume descriptors."""
SP = b"SP\x07\x01\xbe\xef\x00"


@dataclass
class Folder:
    folders: dict[str, Folder] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def all(self, depth: int = 0) -> list[Folder]:
        return [self, *(below for folder in self.folders.values() for below in folder.all(depth + 1))]


def folder_of(files: Mapping[str, bytes]) -> Folder:
    root = Folder()
    for path, data in files.items():
        *above, name = path.split("/")
        place = root
        for part in above:
            place = place.folders.setdefault(part, Folder())
        place.files[name] = data
    return root


def iso(files: Mapping[str, bytes], *, rock_ridge: bool = True, joliet: bool = True) -> bytes:
    return Image(folder_of(files), rock_ridge, joliet).data()


class Image:
    """Both trees of directories, then the files, which they share."""

    def __init__(self, root: Folder, rock_ridge: bool, joliet: bool) -> None:
        self._root, self._rock_ridge, self._joliet = root, rock_ridge, joliet
        self._sector = FIRST
        self._places: dict[tuple[int, bool], int] = {}
        self._contents: dict[tuple[int, str], int] = {}

    def data(self) -> bytes:
        trees = (False, True) if self._joliet else (False,)
        for wide in trees:
            for folder in self._root.all():
                self._places[id(folder), wide] = self._take(len(self._records(folder, folder, wide)))
        for folder in self._root.all():
            for name, data in folder.files.items():
                self._contents[id(folder), name] = self._take(len(data))
        out = bytearray(self._sector * SECTOR)
        out[16 * SECTOR : 17 * SECTOR] = self._descriptor(1, False)
        end = 17
        if self._joliet:
            out[17 * SECTOR : 18 * SECTOR] = self._descriptor(2, True)
            end = 18
        out[end * SECTOR : end * SECTOR + 7] = b"\xffCD001\x01"
        for wide in trees:
            self._write_folders(out, wide)
        for folder in self._root.all():
            for name, data in folder.files.items():
                at = self._contents[id(folder), name] * SECTOR
                out[at : at + len(data)] = data
        return bytes(out)

    def _take(self, size: int) -> int:
        at = self._sector
        self._sector += max(1, -(-size // SECTOR))
        return at

    def _write_folders(
        self, out: bytearray, wide: bool, folder: Folder | None = None, above: Folder | None = None
    ) -> None:
        folder = folder or self._root
        data = self._records(folder, above or folder, wide)
        at = self._places[id(folder), wide] * SECTOR
        out[at : at + len(data)] = data
        for below in folder.folders.values():
            self._write_folders(out, wide, below, folder)

    def _records(self, folder: Folder, above: Folder, wide: bool) -> bytes:
        rock_ridge = self._rock_ridge and not wide
        first = SP if rock_ridge and folder is self._root else b""
        out = self._record(b"\0", self._place(folder, wide), SECTOR, True, first)
        out += self._record(b"\1", self._place(above, wide), SECTOR, True, b"")
        entries = [(name, self._place(below, wide), SECTOR, True) for name, below in folder.folders.items()]
        for name, data in folder.files.items():
            entries.append((name, self._contents.get((id(folder), name), 0), len(data), False))
        for number, (name, sector, size, is_folder) in enumerate(sorted(entries)):
            record = self._record(
                self._own_name(name, number, is_folder, wide),
                *(sector, size, is_folder),
                _nm(name) if rock_ridge else b"",
            )
            if len(out) % SECTOR + len(record) > SECTOR:
                out += bytes(-len(out) % SECTOR)
            out += record
        assert len(out) <= SECTOR, "a directory of the tests fits into one sector"
        return out.ljust(SECTOR, b"\0")

    def _place(self, folder: Folder, wide: bool) -> int:
        return self._places.get((id(folder), wide), 0)

    def _own_name(self, name: str, number: int, is_folder: bool, wide: bool) -> bytes:
        version = "" if is_folder else ";1"
        if wide:
            return name.encode("utf-16-be")
        if self._rock_ridge:
            return f"N{number:07}{'' if is_folder else '.;1'}".encode()
        return (name.upper() + version).encode()

    def _record(self, name: bytes, sector: int, size: int, is_folder: bool, more: bytes) -> bytes:
        body = struct.pack("<I", sector) + struct.pack(">I", sector) + struct.pack("<I", size) + struct.pack(">I", size)
        body += bytes(7) + bytes((2 if is_folder else 0, 0, 0)) + b"\1\0\0\1" + bytes((len(name),)) + name
        body += bytes(1 - len(name) % 2) + more
        length = 2 + len(body)
        return bytes((length + length % 2, 0)) + body + bytes(length % 2)

    def _descriptor(self, kind: int, wide: bool) -> bytes:
        out = bytearray(SECTOR)
        out[:7] = bytes((kind,)) + b"CD001\x01"
        if wide:
            out[88:91] = b"%/E"
        struct.pack_into("<H", out, 128, SECTOR)
        struct.pack_into(">H", out, 130, SECTOR)
        struct.pack_into("<I", out, 80, self._sector)
        struct.pack_into(">I", out, 84, self._sector)
        root = self._record(b"\0", self._place(self._root, wide), SECTOR, True, b"")
        out[156 : 156 + len(root)] = root
        return bytes(out)


def _nm(name: str) -> bytes:
    data = name.encode()
    return b"NM" + bytes((5 + len(data), 1, 0)) + data
