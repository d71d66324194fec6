"""The files of a source: opened once, identified by the open file, read by offset."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk import faults
from hyper2kvmd.errors import Failure, Kind, MigrationFailed, Unsafe
from hyper2kvmd.host.files import data_ranges
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.model.disks import DiskRef, FileIdentity, MemberWindow

USE_FILE = "Use the path of the file itself"
COPY_DEVICE = "Copy it to a file first: qemu-img convert -p -f raw -O qcow2 DEVICE disk.qcow2"
KINDS: Mapping[int, tuple[str, str]] = {
    stat.S_IFDIR: ("a directory", "Name the disk in it. For a directory with an exported machine, use ova: instead"),
    stat.S_IFBLK: ("a block device", COPY_DEVICE),
    stat.S_IFCHR: ("a character device", USE_FILE),
    stat.S_IFIFO: ("a pipe", USE_FILE),
}
"""What a file that is no regular one is, and the remedy."""


@dataclass(frozen=True)
class SourceFile:
    """An open regular file, or a window in one: its opener closes `fd`. Offsets count from the start of the window."""

    fd: int
    identity: FileIdentity

    @property
    def path(self) -> Path:
        """For messages, and for the names of the files beside it. In an archive, it ends with the member's name."""
        window = self.identity.window
        return self.identity.path if window is None else self.identity.path / window.member

    @property
    def is_member(self) -> bool:
        """Whether it is a member of an archive: files that it names are members, too."""
        return self.identity.window is not None

    @property
    def first(self) -> int:
        """Where its first byte is in the file of `fd`."""
        return self.identity.window.first if self.identity.window is not None else 0

    @property
    def opened(self) -> Path:
        """The path for a tool that inherits `fd`: the folder's owner may replace the file at `path`."""
        return Path(f"/proc/self/fd/{self.fd}")

    @property
    def size(self) -> int:
        return self.identity.read_bytes

    def require_unchanged(self) -> None:
        """Raise MigrationFailed (`source-changed`) if the open file has changed since it was opened.

        A write changes its times. So does another file that takes its name, because the count of links changes.
        """
        if _identity(self.identity.path, os.fstat(self.fd), self.identity.window) != self.identity:
            raise source_changed(self.path)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes, fewer only at the end of the file. Raises `disk-read-failed`."""
        if offset >= self.size:
            return b""
        length = min(length, self.size - offset)
        data = self._pread(length, offset)
        while len(data) < length:
            more = self._pread(length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read_whole(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises `source-truncated` and `disk-read-failed`."""
        data = self.read(offset, length)
        if len(data) < length:
            raise faults.truncated(self.path, f"it ends at byte {offset + len(data)} of {offset + length}")
        return data

    def data_ranges(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Ranges in [start, stop) with data on the file system; others are zeros. Raises `disk-read-failed`."""
        first = self.first
        try:
            for begin, end in data_ranges(self.fd, first + start, first + min(stop, self.size)):
                yield begin - first, end - first
        except OSError as error:
            raise self._read_failed(start, error) from error

    def _pread(self, length: int, offset: int) -> bytes:
        try:
            return os.pread(self.fd, length, self.first + offset)
        except OSError as error:
            raise self._read_failed(offset, error) from error

    def _read_failed(self, offset: int, error: OSError) -> MigrationFailed:
        return MigrationFailed(
            "disk-read-failed",
            f"{self.path} cannot be read at byte {offset}: {error.strerror}",
            hint="Check the storage that holds it (dmesg names the device), then retry",
            kind=Kind.OPERATOR,
        )


class Forward:
    """Mostly sequential reads of a file by one thread: adjacent reads share one system call."""

    AHEAD = 256 << 10
    """Bytes."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self._start, self._data = 0, memoryview(b"")

    def read(self, offset: int, length: int) -> memoryview:
        """As `SourceFile.read`; valid until the next call."""
        end = min(offset + length, self.file.size)
        if not self._start <= offset <= end <= self._start + len(self._data):
            near = self._start <= offset <= self._start + len(self._data)
            self._data = memoryview(self.file.read(offset, max(length, self.AHEAD if near else 0)))
            self._start = offset
        return self._data[offset - self._start : end - self._start]


def open_file(path: Path, mandate: Mandate = ANYONE) -> SourceFile:
    """Open a regular file that is not a symbolic link; the caller closes `fd`.

    Raises MigrationFailed (`source-missing`, `source-unreadable`, `file-limit`), or Unsafe (`source-unsafe`, and as
    `mandate.open` and `mandate.require` do).
    """
    try:
        fd = mandate.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise faults.missing(path, mandate.namers[-1].path if mandate.namers else None) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unsafe(
                path, "a symbolic link", f"Use the path that `readlink -f {shlex.quote(str(path))}` shows"
            ) from error
        if error.errno == errno.ENXIO:
            raise _unsafe(path, "a socket") from error
        if error.errno == errno.EMFILE:
            raise MigrationFailed(
                "file-limit",
                f"{path} cannot be opened: the disk has more files than this process may hold open",
                hint="Raise the limit of open files (LimitNOFILE= of the service, ulimit -n)",
                kind=Kind.OPERATOR,
            ) from error
        raise faults.unreadable(path, error) from error
    status = os.fstat(fd)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise _unsafe(path, *KINDS.get(stat.S_IFMT(status.st_mode), ("not a regular file", USE_FILE)))
        mandate.require(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return SourceFile(fd, _identity(path, status))


def in_window(file: SourceFile, window: MemberWindow) -> SourceFile:
    """The window of an open file that was not opened for another one: maps of descriptors distinguish the two.

    Raises MigrationFailed (`source-truncated`) if the file ends before it does.
    """
    if window.first + window.length > file.identity.size:
        end = window.first + window.length
        raise faults.truncated(file.path, f"{window.member} ends at byte {end} of {file.identity.size}")
    return SourceFile(file.fd, file.identity.with_changes(window=window))


def are_as_before(files: Sequence[FileIdentity], mandate: Mandate = ANYONE) -> bool:
    """Whether all can still be opened and are unchanged. Device numbers may change when the host restarts."""
    try:
        now = [_identify(before, mandate) for before in files]
    except Failure:
        return False
    return all(one.with_changes(device=before.device) == before for one, before in zip(now, files, strict=True))


def _identify(before: FileIdentity, mandate: Mandate) -> FileIdentity:
    file = open_file(before.path, mandate)
    os.close(file.fd)
    return file.identity.with_changes(window=before.window)


def _identity(path: Path, status: os.stat_result, window: MemberWindow | None = None) -> FileIdentity:
    return FileIdentity(
        path=path,
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        window=window,
    )


def source_changed(source: Path | DiskRef) -> MigrationFailed:
    return MigrationFailed(
        "source-changed",
        f"{source} was changed or replaced during the migration",
        hint="Stop whatever writes to it (is the VM still running?), then retry",
    )


def _unsafe(path: Path, kind: str, hint: str = USE_FILE) -> Unsafe:
    return Unsafe("source-unsafe", f"{path} is {kind}", hint=hint)
