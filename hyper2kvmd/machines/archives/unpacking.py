"""Writes packed files into the working folder of the job, after the room for them was checked."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hyper2kvmd.disk import faults as damage
from hyper2kvmd.disk.sources.location import open_again, open_stored
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.host import space
from hyper2kvmd.machines.archives import faults
from hyper2kvmd.machines.archives.streams import Compression, Plain, Unpacked
from hyper2kvmd.model.disks import StoredFile, UnpackedFile

FOLDER = "unpacked"
"""Below the working folder: archives in one directory, packed disks in another one for each."""
ARCHIVE, DISKS = "archive", "disks"
NAMELESS = "disk"
"""The name of a disk from which only `..` remains without the suffix of its compression or of its first part."""
NO_FILE_NAME = ("", ".", "..")
IMPOSSIBLE_NAME = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
STEP = 1 << 20
CHECKED = 256 << 20
"""Bytes that are asked for at once at least, if the size is unknown."""
SMALL = 64 << 10
"""Bytes by which each request exceeds the one before at least."""
LARGEST = damage.LARGEST_DISK
ZEROS = bytes(STEP)


class Unpacking:
    """The files that one reading of a machine unpacks. Those of an earlier reading are removed."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._root = sources.folder / FOLDER
        self._disks = 0
        self._written_bytes = 0
        self._granted_bytes = 0
        self._begun = False

    def of_archive(self, name: str, read: Callable[[int], bytes], length: int, archive: Path) -> UnpackedFile:
        """A file of an archive, under its own name. Raises as `_written` does."""
        target = self._folder(ARCHIVE).joinpath(*name.split("/"))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_made(target, error, archive / name) from error
        self._written(target, read, length, archive / name)
        return UnpackedFile(path=target, origin=str(archive / name))

    def of_disk(self, parts: Sequence[StoredFile], compression: Compression | None, name: str) -> UnpackedFile:
        """A disk that is compressed, or cut into parts. It keeps its name, which the format is checked against.

        Raises as `_written` and `open_again` do.
        """
        self._disks += 1
        target = self._folder(f"{DISKS}/{self._disks}") / (NAMELESS if name in NO_FILE_NAME else name)
        origin = str(parts[0]) if len(parts) == 1 else f"{parts[0]} and {len(parts) - 1} more parts"
        if compression is None:
            pieces = _pieces(parts, self._sources)
            total = sum(part.identity.read_bytes for part in parts)
            self._written(target, lambda _length: next(pieces, b""), total, Path(origin))
            next(pieces, b"")  # the last part must not have changed
        elif len(parts) == 1:
            with open_again(parts[0], self._sources.mandate) as file:
                self._written(target, Unpacked(file, compression).read, None, Path(origin))
        else:
            whole = self.of_disk(parts, None, f"{name}.packed")
            with open_stored(whole) as file:
                self._written(target, Unpacked(file, compression).read, None, Path(origin))
            self._written_bytes -= whole.path.lstat().st_blocks * 512
            whole.path.unlink()
        return UnpackedFile(path=target, origin=origin)

    def _folder(self, name: str) -> Path:
        if not self._begun:
            shutil.rmtree(self._root, ignore_errors=True)
            self._begun = True
        folder = self._root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _written(self, target: Path, read: Callable[[int], bytes], length: int | None, origin: Path) -> None:
        """Write `length` bytes, or all that there are. Raises TryLater (`space-short`), MigrationFailed
        (`space-never`, `disk-full`, `source-truncated`, `archive-too-large`), Unsafe (`archive-unsafe`)."""
        self._require_room(CHECKED if length is None else length)
        before = self._written_bytes
        handle = _created(target, origin)
        try:
            done = 0
            while length is None or done < length:
                data = read(STEP if length is None else min(STEP, length - done))
                if not data:
                    break
                if data != ZEROS:
                    if length is None and self._written_bytes + STEP > self._granted_bytes:
                        # in growing steps, so that a job is not put back into the queue again and again
                        self._require_room(max(CHECKED, self._written_bytes // 4))
                    os.pwrite(handle, data, done)
                    self._written_bytes += len(data)
                done += len(data)
                if done > LARGEST:
                    raise faults.too_large(origin, f"it unpacks to more than {LARGEST} bytes")
            if length is not None and done < length:
                raise damage.truncated(origin, f"it has {done} of {length} bytes")
            os.ftruncate(handle, done)
            self._written_bytes = before + os.fstat(handle).st_blocks * 512
        except OSError as error:
            raise _not_written(target, error) from error
        finally:
            os.close(handle)

    def _require_room(self, length: int) -> None:
        """For so many more bytes. Many small files are asked for together: each answer costs the daemon time."""
        total = self._written_bytes + length
        if total > self._granted_bytes:
            space.require_possible(self._sources.folder, total)
            ahead = self._granted_bytes + min(CHECKED, max(SMALL, self._granted_bytes // 4))
            self._sources.require_space(max(total, ahead))
            self._granted_bytes = max(total, ahead)


def unpacked_bytes(folder: Path) -> int:
    """What the unpacked files in a working folder occupy."""
    files = (path.lstat() for path in (folder / FOLDER).rglob("*") if path.is_file())
    return sum(facts.st_blocks * 512 for facts in files)


def _created(target: Path, origin: Path) -> int:
    try:
        return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _not_made(target, error, origin) from error


def _not_made(target: Path, error: OSError, origin: Path) -> Exception:
    if error.errno in IMPOSSIBLE_NAME:
        return faults.unsafe(origin, f"it cannot be unpacked under its own name ({error.strerror})")
    return _not_written(target, error)


def _not_written(target: Path, error: OSError) -> Exception:
    return space.disk_full(target.parent) if error.errno in space.FULL else error


def _pieces(parts: Sequence[StoredFile], sources: Sources) -> Iterator[bytes]:
    for part in parts:
        with open_again(part, sources.mandate) as file:
            stream = Plain(file)
            while data := stream.read(STEP):
                yield data
