"""File access inside one mounted file system, by names that cannot lead out of it.

`openat2` resolves every name with the mount as its root (an absolute link or `..` stays inside) and refuses magic
links. Only regular files and directories are opened for data, so that no FIFO or device of a guest can block or
trigger anything. Names are relative to the mount; a leading slash is the mount itself.

Sources: openat2(2), renameat2(2), path_resolution(7), linux/openat2.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from hyper2kvmd.errors import BrokenInstallation, Kind, MigrationFailed
from hyper2kvmd.guest.files import file_system
from hyper2kvmd.guest.files.interface import FreeSpace
from hyper2kvmd.host.files import copy_range

SYS_OPENAT2 = 437
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
RESOLUTION = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
MAX_EAGAIN = 32
"""The kernel fails a `..` inside the root with EAGAIN after a concurrent rename; trying again is the remedy."""

RENAME_EXCHANGE = 2
"""linux/fs.h"""

COPY_CHUNK = 1 << 24
OVERFLOW_ID = 65534
"""The ID of an unmapped owner (the kernel's default for overflowuid and overflowgid)."""
UNMAPPED = (errno.EPERM, errno.EINVAL, errno.EOVERFLOW)
"""Errors of chown for an owner unknown to an id-mapped mount: the file then belongs to root, so no user gains."""
SELINUX = "security.selinux"
NOT_ALLOWED = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENODATA)
"""Errors of setting an extended attribute without permission; only root may set an SELinux label everywhere."""
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

libc = ctypes.CDLL(None, use_errno=True)


def openat2(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """`path` under `directory`, confined to it. Raises OSError, or BrokenInstallation on a kernel before 5.6."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, RESOLUTION)
    for _ in range(MAX_EAGAIN):
        handle = int(
            libc.syscall(
                ctypes.c_long(SYS_OPENAT2),
                ctypes.c_int(directory),
                ctypes.c_char_p(os.fsencode(path)),
                how,
                ctypes.c_size_t(len(how)),
            )
        )
        if handle >= 0:
            return handle
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise BrokenInstallation(
                "kernel-too-old",
                "this kernel has no openat2, so guest files cannot be opened safely",
                hint="Run it on Linux 5.12 or newer",
            )
        if code != errno.EAGAIN:
            break
    raise OSError(code, os.strerror(code), path)


def is_absent(error: OSError) -> bool:
    return error.errno in ABSENT


def too_large(path: str, limit: int) -> MigrationFailed:
    return MigrationFailed(
        "guest-file-too-large",
        f"the guest's file {path} is larger than {limit} bytes",
        hint="Check the file in the guest: it should be small",
    )


class ConfinedRoot:
    """One mounted file system, or a folder of it. The fd may be O_PATH; the caller closes it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @contextmanager
    def _opened(self, path: str, flags: int, mode: int = 0) -> Iterator[int]:
        handle = openat2(self._fd, path.lstrip("/") or ".", flags, mode)
        try:
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder of `path`, open for changes in it, and the name there."""
        folder, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        with self._opened(folder, os.O_RDONLY | os.O_DIRECTORY) as parent, _writable(parent):
            yield parent, name

    @contextmanager
    def folder(self, path: str) -> Iterator[ConfinedRoot]:
        """A folder of this file system as a root of its own, such as a btrfs subvolume."""
        with self._opened(path, os.O_PATH | os.O_DIRECTORY) as handle:
            yield ConfinedRoot(handle)

    def is_read_only_subvolume(self) -> bool:
        """Whether its top is a btrfs subvolume with the property `ro`. Raises OSError."""
        with self._opened(".", os.O_RDONLY | os.O_DIRECTORY) as handle:
            return file_system.is_read_only_subvolume(handle)

    def set_read_only_subvolume(self, *, read_only: bool) -> None:
        """See `file_system.set_read_only_subvolume`."""
        with self._opened(".", os.O_RDONLY | os.O_DIRECTORY) as handle:
            file_system.set_read_only_subvolume(handle, read_only=read_only)

    # ------------------------------------------------------------ looking

    def stat(self, path: str) -> os.stat_result:
        with self._opened(path, os.O_PATH) as handle:
            return os.fstat(handle)

    def lstat(self, path: str) -> os.stat_result:
        with self._opened(path, os.O_PATH | os.O_NOFOLLOW) as handle:
            return os.fstat(handle)

    def exists(self, path: str) -> bool:
        """Also False for a dangling link, a loop of links and a name below a file."""
        try:
            self.stat(path)
        except OSError as error:
            if is_absent(error):
                return False
            raise
        return True

    @staticmethod
    def spelling(path: str) -> str:
        return path

    @staticmethod
    def room() -> None:
        """Unknown: compression, sparse files and shared blocks make it a guess."""

    def space(self) -> FreeSpace:
        with self._opened(".", os.O_RDONLY | os.O_DIRECTORY) as handle:
            return file_system.free_space(handle)

    def held_by(self, path: str) -> str | None:
        try:
            if stat.S_IFMT(self.lstat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                return None
            with self._opened(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY) as handle:
                return file_system.held_by(handle)
        except OSError:  # it is absent, or cannot be asked
            return None

    def is_foreign(self, path: str) -> bool:
        """Whether an existing file's owner or group is unknown to the id-mapped mount.

        The kernel lets only root replace or remove such a file.
        """
        try:
            status = self.lstat(path)
        except OSError as error:
            if is_absent(error):
                return False
            raise
        return os.geteuid() != 0 and OVERFLOW_ID in (status.st_uid, status.st_gid)

    def readlink(self, path: str) -> str:
        with self._opened(path, os.O_PATH | os.O_NOFOLLOW) as handle:
            return os.readlink("", dir_fd=handle)

    def listdir(self, path: str) -> tuple[str, ...]:
        """Names in a folder, sorted."""
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as handle, os.scandir(handle) as entries:
            return tuple(sorted(entry.name for entry in entries))

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A regular file, for reading. Raises OSError, or MigrationFailed (`guest-file-odd`) for anything else."""
        self._require_regular(self.stat(path), path)
        with self._opened(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as handle:
            self._require_regular(os.fstat(handle), path)
            with os.fdopen(handle, "rb", closefd=False) as stream:
                yield stream

    def read(self, path: str, limit: int) -> bytes:
        """All of a regular file of at most `limit` bytes. Raises as `open`, or `guest-file-too-large`."""
        with self.open(path) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise too_large(path, limit)
        return data

    @staticmethod
    def _require_regular(status: os.stat_result, path: str) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise MigrationFailed(
                "guest-file-odd",
                f"the guest's {path} is not a regular file ({stat.filemode(status.st_mode)})",
                hint="Replace it in the guest with the original file",
            )

    # ------------------------------------------------------------ changing

    def replace(self, path: str, data: bytes, *, new_mode: int = 0o644) -> bool:
        """Replace the content of `path` with `data`, atomically and durably, or create it with `new_mode`.

        Mode, owner and extended attributes stay. Other hard links keep the old content, unless the file has an
        SELinux label that only root may give to another file. A symbolic link at `path` is refused (OSError
        ELOOP). False if a new file lacks a label that it should have, because privilege is missing.
        """
        with self._parent(path) as (parent, name), self._draft(parent, name, path, new_mode) as draft:
            _write_all(draft.handle, data)
            return draft.install(parent, name, lambda original: _rewrite(original, data))

    def insert(self, path: str, at: int, data: bytes) -> bool:
        """Insert `data` into `path` atomically: a copy in its folder replaces it, with shared blocks if possible.

        Returns as `replace`.
        """
        with (
            self._parent(path) as (parent, name),
            self._draft(parent, name, path, 0o600) as draft,
            self.open(path) as original,
        ):
            _copy(original.fileno(), draft.handle, at)
            os.lseek(draft.handle, at, os.SEEK_SET)
            _write_all(draft.handle, data)
            _copy_rest(original.fileno(), at, draft.handle)
            return draft.install(parent, name, lambda kept: _rewrite_from(kept, at, draft.handle))

    def symlink(self, path: str, target: str) -> None:
        with self._parent(path) as (parent, name):
            os.symlink(target, name, dir_fd=parent)
            os.fsync(parent)

    def unlink(self, path: str) -> None:
        with self._parent(path) as (parent, name):
            os.unlink(name, dir_fd=parent)
            os.fsync(parent)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        with self._parent(path) as (parent, name):
            os.mkdir(name, mode, dir_fd=parent)
            os.fsync(parent)

    def sync(self) -> None:
        """Everything written so far is on the disk when this returns."""
        with self._opened(".", os.O_RDONLY | os.O_DIRECTORY) as handle:
            if libc.syncfs(ctypes.c_int(handle)) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

    @contextmanager
    def _draft(self, parent: int, name: str, path: str, new_mode: int) -> Iterator[_Draft]:
        """An empty file in `parent` with the mode, owner and attributes of `name`; removed unless installed."""
        temporary = f".{name[:100]}.{secrets.token_hex(4)}"
        handle = openat2(parent, temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            replaces, labelled = self._copy_metadata(parent, name, path, handle, new_mode)
            yield _Draft(handle, temporary, replaces, labelled)
        finally:
            os.close(handle)
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)

    def _copy_metadata(self, parent: int, name: str, path: str, handle: int, new_mode: int) -> tuple[bool, bool]:
        """Whether there is a file to replace, and whether `handle` has the SELinux label that it needs."""
        try:
            original = openat2(parent, name, os.O_PATH | os.O_NOFOLLOW)
        except FileNotFoundError:
            _set_mode(handle, new_mode)
            return False, _inherit_label(parent, handle)
        try:
            status = os.fstat(original)
            if stat.S_ISLNK(status.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            self._require_regular(status, path)
        finally:
            os.close(original)
        now = os.fstat(handle)
        if (now.st_uid, now.st_gid) != (status.st_uid, status.st_gid):
            try:
                os.fchown(handle, status.st_uid, status.st_gid)
            except OSError as error:
                if error.errno not in UNMAPPED:
                    raise
        _set_mode(handle, stat.S_IMODE(status.st_mode))
        original = openat2(parent, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            return True, _copy_attributes(original, handle)
        finally:
            os.close(original)


@contextmanager
def _writable(folder: int) -> Iterator[None]:
    """Ownership of a folder is not enough: Red Hat's /boot has mode 0555, which only a real root may ignore."""
    if os.access(".", os.W_OK, dir_fd=folder, effective_ids=True):
        yield
        return
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    os.fchmod(folder, mode | stat.S_IWUSR)
    try:
        yield
    finally:
        os.fchmod(folder, mode)


@dataclass(frozen=True)
class _Draft:
    """A file that is about to be created, or to replace another one."""

    handle: int
    temporary: str
    replaces: bool
    labelled: bool
    """False when its SELinux label is missing."""

    def install(self, parent: int, name: str, rewrite: Callable[[int], None]) -> bool:
        """Give `name` the draft's content; returns whether the file has the label that it needs.

        If the draft could not get the label, the original is kept. The draft has the name while `rewrite` gives the
        original the same content; then the original gets its name back. At every instant the name has the whole old
        content or the whole new one.
        """
        os.fsync(self.handle)
        if self.labelled or not self.replaces:
            os.rename(self.temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
            return self.labelled
        _exchange(parent, self.temporary, name)
        with _opened_for_writing(parent, self.temporary) as original:
            rewrite(original)
            os.fsync(original)
        _exchange(parent, self.temporary, name)
        os.fsync(parent)
        return True


def _exchange(folder: int, one: str, other: str) -> None:
    handle = ctypes.c_int(folder)
    if libc.renameat2(handle, os.fsencode(one), handle, os.fsencode(other), ctypes.c_uint(RENAME_EXCHANGE)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), other)


@contextmanager
def _opened_for_writing(folder: int, name: str) -> Iterator[int]:
    """A file that its owner may not write to (Debian's grub.cfg) is made writable while it is opened."""
    reading = openat2(folder, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = stat.S_IMODE(os.fstat(reading).st_mode)
        _set_mode(reading, mode | stat.S_IWUSR)
        try:
            handle = openat2(folder, name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
        finally:
            _set_mode(reading, mode)
    finally:
        os.close(reading)
    try:
        yield handle
    finally:
        os.close(handle)


def _rewrite(handle: int, data: bytes) -> None:
    _write_all(handle, data)
    os.ftruncate(handle, len(data))


def _rewrite_from(handle: int, at: int, source: int) -> None:
    """Everything from the byte `at` on, as in `source`."""
    os.lseek(handle, at, os.SEEK_SET)
    _copy_rest(source, at, handle)


def _copy_rest(source: int, at: int, target: int) -> None:
    """From the byte `at` of `source` to the position of `target`."""
    while data := os.pread(source, COPY_CHUNK, at):
        _write_all(target, data)
        at += len(data)


def _set_mode(handle: int, mode: int) -> None:
    """Set the mode only if it differs: FAT has no modes to set."""
    if stat.S_IMODE(os.fstat(handle).st_mode) != mode:
        os.fchmod(handle, mode)


def _inherit_label(folder: int, handle: int) -> bool:
    """Give a new file its folder's SELinux label, as SELinux would; False if it should have one and has not."""
    try:
        label = os.getxattr(folder, SELINUX)
    except OSError:
        return True
    try:
        os.setxattr(handle, SELINUX, label)
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            raise
        return False
    return True


def _copy_attributes(source: int, target: int) -> bool:
    """Copy extended attributes; False if the SELinux label could not be copied."""
    kept = True
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
            return True
        raise
    for attribute in names:
        try:
            os.setxattr(target, attribute, os.getxattr(source, attribute))
        except OSError as error:
            if error.errno not in NOT_ALLOWED:
                raise
            kept = kept and attribute != SELINUX
    return kept


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _copy(source: int, target: int, size: int) -> None:
    done = 0
    while done < size:
        copied = copy_range(source, target, done, min(size - done, COPY_CHUNK))
        if copied == 0:
            raise MigrationFailed(
                "guest-file-shrank",
                f"a guest file ended {size - done} bytes early while it was copied",
                hint="Make sure that nothing else writes to this image, then retry",
                kind=Kind.RETRY,
            )
        done += copied
