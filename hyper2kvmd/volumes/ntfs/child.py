"""Reads and changes the files of one NTFS volume with libntfs-3g. It has no access to the image.

It runs alone (`python -IS child.py`, standard library only), confined, and speaks with its starter by stdin and stdout:
it asks for the volume's bytes, keeps changed blocks in memory, and hands them over at the end. The library's parser
meets hostile volumes, so the starter trusts nothing that it gets from here (volume.py describes the messages).

libntfs-3g is GPL-2.0-or-later. Its functions and structures: ntfs-3g's include/ntfs-3g/*.h, the same for
both sonames.
"""

from __future__ import annotations

import codecs
import ctypes
import errno
import json
import os
import resource
import stat
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

SONAMES = ("libntfs-3g.so.91", "libntfs-3g.so.89")
"""Of ntfs-3g 2026.9.28 and 2022.10.3."""
BLOCK = 4096
"""Bytes: changes are kept and handed over in blocks of this size."""
STEP = 64 << 10
"""Bytes that are read ahead."""
MOST_STEPS = 16
"""Steps in one request."""
CACHED_STEPS = 1024
PIECE = 1 << 20
CHANGED_LIMIT = 256 << 20
"""Bytes of changed blocks, without those of one repeated byte."""
NAMES_LIMIT = 200_000
MESSAGE = struct.Struct("<cQI")
"""To the starter: what it is, then an offset and a length, or the lengths of the data and of the JSON text."""
REQUEST = struct.Struct("<IQ")
"""From the starter: the lengths of the JSON text and of the data."""

UPCASE_BYTES = 2 << 16

AT_STANDARD_INFORMATION, AT_VOLUME_INFORMATION, AT_DATA, AT_REPARSE_POINT = 0x10, 0x70, 0x80, 0xC0
SPARSE, REPARSE, COMPRESSED, ENCRYPTED = 0x200, 0x400, 0x800, 0x4000
"""File attributes."""
DATA_COMPRESSED, DATA_ENCRYPTED, DATA_SPARSE = 0x00FF, 0x4000, 0x8000
"""Flags of an attribute."""
IS_FOLDER = 0x2
"""Flag of an MFT record."""
FILE_VOLUME, FILE_ROOT, FILE_BITMAP, FILE_UPCASE, FIRST_USER_FILE = 3, 5, 6, 10, 24
REFERENCE_BITS = (1 << 48) - 1
DOS_NAME = 2
DT_REG = 8
SECURITY_ID, STANDARD_INFORMATION_3 = 52, 72
"""Offset in the standard information of NTFS 3, and its length."""
MOUNT_READ_ONLY = 1

s64, pointer = ctypes.c_int64, ctypes.c_void_p


def function_type(result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments, use_errno=True)


OPEN = function_type(ctypes.c_int, pointer, ctypes.c_int)
ON_DEVICE = function_type(ctypes.c_int, pointer)
SEEK = function_type(s64, pointer, s64, ctypes.c_int)
TRANSFER = function_type(s64, pointer, pointer, s64)
TRANSFER_AT = function_type(s64, pointer, pointer, s64, s64)
STAT = function_type(ctypes.c_int, pointer, pointer)
IOCTL = function_type(ctypes.c_int, pointer, ctypes.c_ulong, pointer)
NAME_FOUND = function_type(
    ctypes.c_int, pointer, pointer, ctypes.c_int, ctypes.c_int, s64, ctypes.c_uint64, ctypes.c_uint
)

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "ntfs_device_alloc": (pointer, ctypes.c_char_p, ctypes.c_long, pointer, pointer),
    "ntfs_device_mount": (pointer, pointer, ctypes.c_ulong),
    "ntfs_umount": (ctypes.c_int, pointer, ctypes.c_int),
    "ntfs_inode_open": (pointer, pointer, ctypes.c_uint64),
    "ntfs_inode_close": (ctypes.c_int, pointer),
    "ntfs_inode_close_in_dir": (ctypes.c_int, pointer, pointer),
    "ntfs_create": (pointer, pointer, ctypes.c_uint32, pointer, ctypes.c_uint8, ctypes.c_uint32),
    "ntfs_delete": (ctypes.c_int, pointer, ctypes.c_char_p, pointer, pointer, pointer, ctypes.c_uint8),
    "ntfs_attr_open": (pointer, pointer, ctypes.c_uint32, pointer, ctypes.c_uint32),
    "ntfs_attr_close": (None, pointer),
    "ntfs_attr_pread": (s64, pointer, s64, s64, pointer),
    "ntfs_attr_pwrite": (s64, pointer, s64, s64, pointer),
    "ntfs_attr_pclose": (ctypes.c_int, pointer),
    "ntfs_attr_truncate": (ctypes.c_int, pointer, s64),
    "ntfs_attr_readall": (pointer, pointer, ctypes.c_uint32, pointer, ctypes.c_uint32, pointer),
    "ntfs_readdir": (ctypes.c_int, pointer, pointer, pointer, NAME_FOUND),
}
"""Results and arguments of the library's functions."""


class Unknown(Exception):
    """The library is missing, or not the known one."""


class DeviceOperations(ctypes.Structure):
    """struct ntfs_device_operations"""

    _fields_ = (
        ("open", OPEN),
        ("close", ON_DEVICE),
        ("seek", SEEK),
        ("read", TRANSFER),
        ("write", TRANSFER),
        ("pread", TRANSFER_AT),
        ("pwrite", TRANSFER_AT),
        ("sync", ON_DEVICE),
        ("stat", STAT),
        ("ioctl", IOCTL),
    )


def loaded_library() -> tuple[str, ctypes.CDLL]:
    """The newest installed one and its soname. Raises Unknown."""
    faults = []
    for soname in SONAMES:
        try:
            return soname, ctypes.CDLL(soname, use_errno=True)
        except OSError as error:
            faults.append(str(error))
    raise Unknown("; ".join(faults))


class Library:
    """The library's functions, by name without `ntfs_`. Raises Unknown."""

    def __init__(self) -> None:
        self.soname, loaded = loaded_library()
        self._functions: dict[str, Callable[..., Any]] = {}
        for name, (result, *arguments) in FUNCTIONS.items():
            try:
                function = getattr(loaded, name)
            except AttributeError:
                raise Unknown(f"{self.soname} has no function {name}") from None
            function.restype, function.argtypes = result, arguments
            self._functions[name.removeprefix("ntfs_")] = function
        self.unnamed = ctypes.addressof(ctypes.c_uint16.in_dll(loaded, "AT_UNNAMED"))
        self.release = ctypes.CDLL(None).free
        self.release.argtypes = (pointer,)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]


def starter_reads(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]


def starter_says(length: int) -> bytearray:
    """The next bytes from the starter. Without one, this process ends: nothing that it could still do has a use."""
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        count = os.readv(sys.stdin.fileno(), [view[got : got + PIECE]])
        if not count:
            os._exit(0)
        got += count
    return data


def is_repeated(piece: bytes) -> bool:
    """Whether all bytes are the same, as in an emptied log."""
    return piece == piece[:1] * len(piece)


class ChangedBlocks:
    """The volume's bytes: those of the image, and over them the changed blocks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.changed: dict[int, bytes] = {}
        self._repeated: dict[bytes, bytes] = {}
        self._own = 0
        self.is_full = False
        """Whether a change was refused by CHANGED_LIMIT."""
        self._steps: OrderedDict[int, bytes] = OrderedDict()

    def read(self, at: int, length: int) -> bytearray:
        if at < 0 or length < 0 or at + length > self.size:
            raise OSError(errno.EIO, "outside the volume")
        data = self._original(at, length)
        for block in range(at // BLOCK, -(-(at + length) // BLOCK)) if self.changed else ():
            new = self.changed.get(block)
            if new is not None:
                start, end = max(at, block * BLOCK), min(at + length, (block + 1) * BLOCK)
                data[start - at : end - at] = new[start - block * BLOCK : end - block * BLOCK]
        return data

    def write(self, at: int, data: bytes) -> None:
        if at < 0 or at + len(data) > self.size:
            raise OSError(errno.EIO, "outside the volume")
        end = at + len(data)
        start_block, end_block = at // BLOCK, -(-end // BLOCK)
        originals = b"" if is_repeated(data) else self._original_blocks(start_block, end_block)
        for block in range(start_block, end_block):
            first, last = block * BLOCK, min((block + 1) * BLOCK, self.size)
            start, stop = max(at, first), min(end, last)
            piece = data[start - at : stop - at]
            if (start, stop) != (first, last):
                whole = self.read(first, last - first)
                whole[start - first : stop - first] = piece
                piece = bytes(whole)
            place = (block - start_block) * BLOCK
            self._keep(block, piece, originals[place : place + BLOCK])

    def _original_blocks(self, first: int, end: int) -> bytearray:
        return self._original(first * BLOCK, min(end * BLOCK, self.size) - first * BLOCK)

    def _keep(self, block: int, piece: bytes, original: bytes | bytearray) -> None:
        """Unless it is as before: the library rewrites whole files. `original` is empty if it is not compared."""
        before = self.changed.pop(block, None)
        self._own -= before is not None and before not in self._repeated
        if piece == original:
            return
        repeated = is_repeated(piece)
        if repeated:
            piece = self._repeated.setdefault(piece, piece)
        self._own += not repeated
        if self._own * BLOCK > CHANGED_LIMIT:
            self.is_full = True
            raise OSError(errno.ENOSPC, "too many changes")
        self.changed[block] = piece

    def _original(self, at: int, length: int) -> bytearray:
        data = bytearray()
        first, last = at // STEP, -(-(at + length) // STEP)
        for step in range(first, last):
            if step not in self._steps:
                self._fetch(step, last)
            found = self._steps[step]
            self._steps.move_to_end(step)
            data += found[max(0, at - step * STEP) : at + length - step * STEP]
        return data

    def _fetch(self, step: int, last: int) -> None:
        """Ask for a step and for those behind it that are wanted as well."""
        stop = step + 1
        while stop < min(last, step + MOST_STEPS) and stop not in self._steps:
            stop += 1
        start, end = step * STEP, min(stop * STEP, self.size)
        starter_reads(MESSAGE.pack(b"R", start, end - start))
        data = bytes(starter_says(end - start))
        for number in range(step, stop):
            self._steps[number] = data[(number - step) * STEP : (number - step + 1) * STEP]
        while len(self._steps) > CACHED_STEPS:
            self._steps.popitem(last=False)


def reported(function: Callable[..., int]) -> Callable[..., int]:
    """Python's exceptions as the library's errors."""

    def called(*arguments: Any) -> int:
        try:
            return function(*arguments)
        except OSError as error:
            ctypes.set_errno(error.errno or errno.EIO)
        except Exception:
            ctypes.set_errno(errno.EIO)
        return -1

    return called


class Device:
    """The callbacks of the library for `overlay`. An instance must live as long as the mount."""

    def __init__(self, overlay: ChangedBlocks, *, read_only: bool) -> None:
        self._overlay, self._read_only, self._position = overlay, read_only, 0
        self.operations = DeviceOperations(
            OPEN(lambda _device, _flags: 0),
            ON_DEVICE(lambda _device: 0),
            SEEK(reported(self._seek)),
            TRANSFER(reported(self._read)),
            TRANSFER(reported(self._unsupported)),
            TRANSFER_AT(reported(self._read_at)),
            TRANSFER_AT(reported(self._write_at)),
            ON_DEVICE(lambda _device: 0),
            STAT(reported(self._unsupported)),
            IOCTL(reported(self._unsupported)),
        )

    def _seek(self, _device: int, offset: int, whence: int) -> int:
        base = (0, self._position, self._overlay.size)[whence]
        if not 0 <= base + offset <= self._overlay.size:
            raise OSError(errno.EINVAL, "outside the volume")
        self._position = base + offset
        return self._position

    def _read(self, device: int, buffer: int, length: int) -> int:
        count = self._read_at(device, buffer, length, self._position)
        self._position += count
        return count

    def _read_at(self, _device: int, buffer: int, length: int, at: int) -> int:
        count = min(length, max(0, self._overlay.size - at))
        data = self._overlay.read(at, count)
        ctypes.memmove(buffer, bytes(data), count)
        return count

    def _write_at(self, _device: int, buffer: int, length: int, at: int) -> int:
        if self._read_only:
            raise OSError(errno.EROFS, "read-only")
        self._overlay.write(at, ctypes.string_at(buffer, length))
        return length

    def _unsupported(self, *_: int) -> int:
        raise OSError(errno.EOPNOTSUPP, "not supported")


def failed(what: str) -> OSError:
    number = ctypes.get_errno() or errno.EIO
    return OSError(number, f"{os.strerror(number)}: {what}")


def number_at(address: int, offset: int, form: str) -> int:
    return int(struct.unpack(form, ctypes.string_at(address + offset, struct.calcsize(form)))[0])


class Attribute:
    """An open attribute. Offsets are those of `struct _ntfs_attr`."""

    def __init__(self, library: Library, inode: int, kind: int) -> None:
        self._library = library
        self.handle: int = library.attr_open(inode, kind, library.unnamed, 0)
        if not self.handle:
            raise failed("the file's data cannot be opened")

    def __enter__(self) -> Attribute:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.attr_close(self.handle)

    @property
    def inode(self) -> int:
        return number_at(self.handle, 8, "<Q")

    @property
    def kind(self) -> int:
        return number_at(self.handle, 16, "<I")

    @property
    def flags(self) -> int:
        return number_at(self.handle, 20, "<H")

    @property
    def size(self) -> int:
        return number_at(self.handle, 56, "<q")

    def read(self, at: int, length: int) -> bytes:
        buffer = ctypes.create_string_buffer(length)
        count = self._library.attr_pread(self.handle, at, length, ctypes.addressof(buffer))
        if count <= 0:
            raise failed("the file's data cannot be read")
        return buffer.raw[:count]

    def replace(self, data: bytes) -> None:
        if self._library.attr_truncate(self.handle, len(data)):
            raise failed("the file's size cannot be changed")
        done = 0
        while done < len(data):
            piece = data[done : done + PIECE]
            count = self._library.attr_pwrite(self.handle, done, len(piece), piece)
            if count <= 0:
                raise failed("the file's data cannot be written")
            done += count
        if self.flags & DATA_COMPRESSED and self._library.attr_pclose(self.handle):
            raise failed("the file's compressed data cannot be written")


class Name(NamedTuple):
    text: str
    number: int
    """Of its inode."""
    is_file: bool
    """Neither folder nor reparse point."""
    is_short: bool
    """A second name of 8.3 characters."""


class Inode:
    """An open file or folder. Offsets are those of `struct _ntfs_inode`."""

    def __init__(self, library: Library, volume: int, number: int, folder: Inode | None = None) -> None:
        self._library, self._folder = library, folder
        handle = library.inode_open(volume, number)
        if not handle:
            raise failed("the file cannot be opened")
        self.handle: int = handle
        self._open = True

    def __enter__(self) -> Inode:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.close() and kind is None:
            raise failed("the file cannot be closed")

    def close(self) -> bool:
        """Whether that failed."""
        if not self._open:
            return False
        self._open = False
        if self._folder is not None:
            return bool(self._library.inode_close_in_dir(self.handle, self._folder.handle))
        return bool(self._library.inode_close(self.handle))

    def was_closed(self) -> None:
        """By the library."""
        self._open = False

    @property
    def number(self) -> int:
        return number_at(self.handle, 0, "<Q")

    @property
    def record(self) -> int:
        return number_at(self.handle, 8, "<Q")

    @property
    def volume(self) -> int:
        return number_at(self.handle, 16, "<Q")

    @property
    def flags(self) -> int:
        return number_at(self.handle, 32, "<I")

    @property
    def is_folder(self) -> bool:
        return bool(number_at(self.record, 22, "<H") & IS_FOLDER)

    def attribute(self, kind: int = AT_DATA) -> Attribute:
        return Attribute(self._library, self.handle, kind)

    def value(self, kind: int) -> bytes:
        length = s64(0)
        found = self._library.attr_readall(self.handle, kind, self._library.unnamed, 0, ctypes.addressof(length))
        if not found:
            raise failed("an attribute of the file cannot be read")
        try:
            return ctypes.string_at(found, length.value)
        finally:
            self._library.release(found)

    @property
    def security_id(self) -> int:
        value = self.value(AT_STANDARD_INFORMATION)
        return (
            int.from_bytes(value[SECURITY_ID : SECURITY_ID + 4], "little")
            if len(value) >= STANDARD_INFORMATION_3
            else 0
        )

    def reparse_tag(self) -> int | None:
        return int.from_bytes(self.value(AT_REPARSE_POINT)[:4], "little") if self.flags & REPARSE else None

    def names(self) -> list[Name]:
        """Names in the folder, without those of the files of NTFS itself."""
        found: list[Name] = []

        def add(_: int, name: int, length: int, kind: int, _at: int, reference: int, dt: int) -> int:
            number = reference & REFERENCE_BITS
            if number >= FIRST_USER_FILE:
                text = ctypes.string_at(name, length * 2).decode("utf-16-le", "surrogatepass")
                found.append(Name(text, number, dt == DT_REG, kind == DOS_NAME))
            return -1 if len(found) > NAMES_LIMIT else 0

        position = s64(0)
        if self._library.readdir(self.handle, ctypes.addressof(position), None, NAME_FOUND(add)):
            raise failed("the folder cannot be read")
        return [name for name in found if name.text not in (".", "..")]


def require_folder(inode: Inode) -> None:
    if inode.flags & REPARSE:
        raise OSError(errno.ELOOP, "a reparse point")
    if not inode.is_folder:
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def require_file(inode: Inode) -> None:
    if inode.flags & REPARSE:
        raise OSError(errno.ELOOP, "a reparse point")
    if inode.is_folder:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if inode.flags & ENCRYPTED:
        raise OSError(errno.EACCES, "the file is encrypted (EFS)")


def utf16(name: str) -> bytes:
    return name.encode("utf-16-le", "surrogatepass")


class Names:
    """The names in the folders of a volume, in any case: `fold` is the volume's own table of upper case."""

    def __init__(self, table: bytes) -> None:
        pairs = enumerate(struct.unpack(f"<{len(table) // 2}H", table[: len(table) // 2 * 2]))
        self._fold = {lower: upper for lower, upper in pairs if lower != upper}
        self._folders: dict[int, dict[str, Name]] = {}

    def within(self, folder: Inode) -> dict[str, Name]:
        """By folded name."""
        known = self._folders.get(folder.number)
        if known is None:
            known = self._folders[folder.number] = {}
            for name in folder.names():
                known.setdefault(self.folded(name.text), name)
        return known

    def folded(self, name: str) -> str:
        return name.translate(self._fold)

    def forget(self, folder: Inode) -> None:
        self._folders.pop(folder.number, None)


class MountedVolume:
    """A mounted volume. Paths have no leading slash; case does not matter in them."""

    def __init__(self, library: Library, size: int, *, read_only: bool) -> None:
        self._library = library
        self.overlay = ChangedBlocks(size)
        self._device = Device(self.overlay, read_only=read_only)
        self._neighbours: dict[tuple[int, bool], int] = {}
        made = library.device_alloc(b"guest", 0, ctypes.addressof(self._device.operations), None)
        self._handle = library.device_mount(made, MOUNT_READ_ONLY if read_only else 0)
        if not self._handle:
            raise failed("the volume cannot be opened")
        self._require_known_structures()
        with self._inode(FILE_UPCASE) as inode, inode.attribute() as table:
            self._names = Names(table.read(0, UPCASE_BYTES))

    def _require_known_structures(self) -> None:
        """Each offset, by values that the library does not take from the volume, or also shows by a function."""
        with self._inode(FILE_VOLUME) as inode:
            value = inode.value(AT_VOLUME_INFORMATION)
            flags = int.from_bytes(inode.value(AT_STANDARD_INFORMATION)[32:36], "little")
            right = (inode.number, inode.volume, inode.flags) == (FILE_VOLUME, self._handle, flags)
            right = right and ctypes.string_at(inode.record, 4) == b"FILE"
            with inode.attribute(AT_VOLUME_INFORMATION) as attribute:
                seen = (attribute.inode, attribute.kind, attribute.flags, attribute.size)
                if not right or seen != (inode.handle, AT_VOLUME_INFORMATION, 0, len(value)):
                    raise Unknown(f"the structures of {self._library.soname} are not the known ones")

    def _inode(self, number: int, folder: Inode | None = None) -> Inode:
        return Inode(self._library, self._handle, number, folder)

    def _find(self, folder: Inode, name: str) -> Name:
        found = self._names.within(folder).get(self._names.folded(name))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return found

    def _at(self, path: str) -> Inode:
        """Reparse points on the way are never followed."""
        inode = self._inode(FILE_ROOT)
        for part in filter(None, path.split("/")):
            with inode:
                require_folder(inode)
                inode = self._inode(self._find(inode, part).number)
        return inode

    def stat(self, path: str) -> dict[str, object]:
        with self._at(path) as inode:
            size = 0
            if not inode.is_folder:
                with inode.attribute() as data:
                    size = data.size
            return {
                "folder": inode.is_folder,
                "size": size,
                "attributes": inode.flags,
                "security": inode.security_id,
                "reparse": inode.reparse_tag(),
            }

    def names(self, path: str) -> list[str]:
        with self._at(path) as inode:
            require_folder(inode)
            return [name.text for name in self._names.within(inode).values() if not name.is_short]

    def spelling(self, path: str) -> str:
        """`path` as the volume spells it, as far as it exists."""
        done: list[str] = []
        inode = self._inode(FILE_ROOT)
        parts = [*filter(None, path.split("/"))]
        for part in parts:
            with inode:
                if inode.flags & REPARSE or not inode.is_folder:
                    break
                name = self._names.within(inode).get(self._names.folded(part))
                if name is None:
                    break
                done.append(part if name.is_short else name.text)
                inode = self._inode(name.number)
        inode.close()
        return "/".join((*done, *parts[len(done) :]))

    def read(self, path: str, limit: int) -> bytearray:
        with self._at(path) as inode:
            require_file(inode)
            with inode.attribute() as data:
                if data.flags & DATA_ENCRYPTED:
                    raise OSError(errno.EACCES, "the file is encrypted (EFS)")
                if data.size > limit:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                found = bytearray()
                while len(found) < data.size:
                    found += data.read(len(found), min(PIECE, data.size - len(found)))
                return found

    def free(self) -> int:
        """Bytes. The bits behind the last cluster are set."""
        (sector, clusters) = struct.unpack_from("<HB", self.overlay.read(11, 3))
        cluster: int = sector * clusters if clusters <= 0x80 else sector << (256 - clusters)
        with self._inode(FILE_BITMAP) as inode, inode.attribute() as data:
            zeros = 0
            for at in range(0, data.size, PIECE):
                piece = data.read(at, min(PIECE, data.size - at))
                zeros += 8 * len(piece) - int.from_bytes(piece, "little").bit_count()
        return zeros * cluster

    def _folder(self, path: str) -> tuple[Inode, str]:
        """The folder of `path`, open, and the last part."""
        parent, _, name = path.rpartition("/")
        folder = self._at(parent)
        try:
            require_folder(folder)
        except OSError:
            folder.close()
            raise
        return folder, name

    def _security_id(self, folder: Inode, like: str | None, *, for_folder: bool) -> int:
        """Of `like`, else of the first of its kind in the folder, else of the folder."""
        if like is not None:
            with self._at(like) as inode:
                return inode.security_id
        key = (folder.number, for_folder)
        if key not in self._neighbours:
            self._neighbours[key] = self._neighbour(folder, for_folder=for_folder)
        return self._neighbours[key]

    def _neighbour(self, folder: Inode, *, for_folder: bool) -> int:
        """The first one with an identifier: with 0, the library would let everybody write."""
        for _, name in sorted(self._names.within(folder).items()):
            if name.is_file != for_folder:
                with self._inode(name.number) as inode:
                    if inode.is_folder == for_folder and not inode.flags & REPARSE and inode.security_id:
                        return inode.security_id
        return folder.security_id

    def _create(self, folder: Inode, name: str, security_id: int, kind: int) -> None:
        wanted = utf16(name)
        self._names.forget(folder)
        made = self._library.create(folder.handle, security_id, wanted, len(wanted) // 2, kind)
        if not made:
            raise failed("it cannot be created")
        if self._library.inode_close_in_dir(made, folder.handle):
            raise failed("it cannot be closed")

    def mkdir(self, path: str, like: str | None) -> None:
        folder, name = self._folder(path)
        with folder:
            if self._names.folded(name) in self._names.within(folder):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._create(folder, name, self._security_id(folder, like, for_folder=True), stat.S_IFDIR)

    def write(self, path: str, data: bytes, like: str | None) -> None:
        """Replace the content of a file, which keeps its attributes, security and other names; or make one."""
        folder, name = self._folder(path)
        with folder:
            if self._names.folded(name) not in self._names.within(folder):
                self._create(folder, name, self._security_id(folder, like, for_folder=False), stat.S_IFREG)
            with self._inode(self._find(folder, name).number, folder) as inode:
                require_file(inode)
                with inode.attribute() as stream:
                    if stream.flags & (DATA_SPARSE | DATA_ENCRYPTED) or inode.flags & SPARSE:
                        raise OSError(errno.EOPNOTSUPP, "the file is sparse or encrypted")
                    stream.replace(data)

    def unlink(self, path: str) -> None:
        folder, name = self._folder(path)
        with folder:
            found = self._find(folder, name)
            inode = self._inode(found.number)
            if inode.is_folder:
                inode.close()
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            wanted = utf16(found.text)
            self._names.forget(folder)
            inode.was_closed()
            folder.was_closed()
            handles = (inode.handle, folder.handle)
            if self._library.delete(self._handle, None, *handles, wanted, len(wanted) // 2):
                raise failed("it cannot be removed")

    def commit(self) -> tuple[list[tuple[int, int, int]], list[bytes]]:
        """Unmount. The changed runs (offset, length, their one repeated byte or -1), and the bytes of the others."""
        if self._library.umount(self._handle, 0):
            raise failed("the volume cannot be closed")
        runs: list[tuple[int, int, int]] = []
        pieces = []
        for block in sorted(self.overlay.changed):
            piece = self.overlay.changed[block]
            byte = piece[0] if is_repeated(piece) else -1
            if byte < 0:
                pieces.append(piece)
            if runs and (runs[-1][0] + runs[-1][1], runs[-1][2]) == (block * BLOCK, byte):
                runs[-1] = (runs[-1][0], runs[-1][1] + len(piece), byte)
            else:
                runs.append((block * BLOCK, len(piece), byte))
        return runs, pieces


class Server:
    """Answers the starter's requests."""

    def __init__(self) -> None:
        self._volume: MountedVolume | None = None
        self._library: Library | None = None

    def load(self) -> None:
        """From here on, no file can be opened. Raises Unknown."""
        self._library = Library()
        codecs.lookup("utf-16-le")  # its module is a file
        ON_DEVICE(lambda _device: 0)  # libffi opens files for the first callback
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))

    @property
    def is_full(self) -> bool:
        return self._volume is not None and self._volume.overlay.is_full

    @property
    def volume(self) -> MountedVolume:
        if self._volume is None:
            raise OSError(errno.EINVAL, "no volume is open")
        return self._volume

    def answer(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, object], list[bytes]]:
        operation, path = request["op"], str(request.get("path", ""))
        if operation == "open":
            assert self._library is not None  # noqa: S101 - narrows the type
            self._volume = MountedVolume(self._library, request["size"], read_only=request["read_only"])
        elif operation == "stat":
            return self.volume.stat(path), []
        elif operation == "list":
            return {"names": self.volume.names(path)}, []
        elif operation == "spelling":
            return {"path": self.volume.spelling(path)}, []
        elif operation == "read":
            return {}, [bytes(self.volume.read(path, request["limit"]))]
        elif operation == "free":
            return {"free": self.volume.free()}, []
        elif operation == "write":
            self.volume.write(path, data, request.get("like"))
        elif operation == "mkdir":
            self.volume.mkdir(path, request.get("like"))
        elif operation == "unlink":
            self.volume.unlink(path)
        elif operation == "commit":
            runs, pieces = self.volume.commit()
            return {"runs": runs}, pieces
        return {}, []


def send(answer: dict[str, object], pieces: list[bytes]) -> None:
    text = json.dumps(answer).encode()
    starter_reads(MESSAGE.pack(b"A", sum(map(len, pieces)), len(text)) + text)
    for piece in pieces:
        starter_reads(piece)


def main() -> None:
    service = Server()
    try:
        service.load()
        send({}, [])
    except Unknown as reason:
        send({"unknown": str(reason)}, [])
        return
    while True:
        length, count = REQUEST.unpack(starter_says(REQUEST.size))
        request = json.loads(starter_says(length))
        data = bytes(starter_says(count))
        try:
            send(*service.answer(request, data))
        except Unknown as reason:
            send({"unknown": str(reason)}, [])
        except OSError as error:
            if service.is_full:
                send({"full": CHANGED_LIMIT}, [])
                continue
            send({"errno": error.errno or errno.EIO, "error": error.strerror or str(error)}, [])


if __name__ == "__main__":
    main()
