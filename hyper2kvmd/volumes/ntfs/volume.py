"""One NTFS volume: its files by path, in any case, and the blocks that were changed in them.

The files are read and changed by a confined process (child.py); the image is not.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.volumes.fat import Blocks
from hyper2kvmd.volumes.ntfs import tool
from hyper2kvmd.volumes.ntfs.changes import VolumeChanges, changes_of
from hyper2kvmd.volumes.ntfs.tool import Tool, faulty, field

NAMES_LIMIT = 200_000
FILE_LIMIT = 256 << 20
"""Bytes of the largest file that is read."""


@dataclass(frozen=True)
class NtfsEntry:
    is_folder: bool
    size: int
    """Bytes; 0 for folders."""
    attributes: int
    """FILE_ATTRIBUTE_*"""
    security_id: int
    reparse_tag: int | None
    """None unless it is a reparse point."""


class NtfsVolume:
    """Use `open_volume`. Paths have no leading slash; reparse points are never followed.

    Raises OSError for a caller's errors and for damage in single files, and MigrationFailed (`ntfs-tool-died`,
    `ntfs-tool-faulty`, `ntfs-change-limit`). After a change that failed there are no `changed_blocks`.
    """

    def __init__(self, process: Tool, blocks: Blocks, identity: str) -> None:
        self._tool, self._blocks, self._identity = process, blocks, identity
        self._entries: dict[str, NtfsEntry] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._changed = self._spoiled = False

    # ------------------------------------------------------------ looking

    def entry(self, path: str) -> NtfsEntry:
        """Raises OSError ENOENT, ENOTDIR, and ELOOP below a reparse point."""
        key = _key(path)
        if key not in self._entries:
            found, _ = self._tool.ask("stat", path=path)
            tag = found.get("reparse")
            if tag is not None and type(tag) is not int:
                raise faulty("an answer has no valid reparse point")
            self._entries[key] = NtfsEntry(
                is_folder=bool(field(found, "folder")),
                size=field(found, "size"),
                attributes=field(found, "attributes"),
                security_id=field(found, "security"),
                reparse_tag=tag,
            )
        return self._entries[key]

    def names(self, path: str) -> tuple[str, ...]:
        """Of a folder, without the files of NTFS itself and short names."""
        key = _key(path)
        if key not in self._names:
            found, _ = self._tool.ask("list", path=path)
            names = found.get("names")
            if not isinstance(names, list) or len(names) > NAMES_LIMIT or not all(map(_is_name, names)):
                raise faulty("an answer has no valid names")
            self._names[key] = tuple(names)
        return self._names[key]

    def spelling(self, path: str) -> str:
        """`path` as spelled on the disk, as far as it exists."""
        found, _ = self._tool.ask("spelling", path=path)
        spelled = found.get("path")
        if not isinstance(spelled, str) or _lengths(spelled) != _lengths(path):
            raise faulty("an answer has no valid path")
        return spelled

    def read(self, path: str, limit: int) -> bytes:
        """Raises OSError EFBIG for a file with more than `limit` bytes, ELOOP for a reparse point, EACCES for a file
        encrypted by EFS.
        """
        wanted = min(limit, FILE_LIMIT)
        _, data = self._tool.ask("read", path=path, limit=wanted)
        if len(data) > wanted:
            raise faulty("an answer has too many bytes")
        return data

    @property
    def free_bytes(self) -> int:
        found, _ = self._tool.ask("free")
        return field(found, "free")

    # ------------------------------------------------------------ changing

    def write(self, path: str, data: bytes, *, like: str | None = None) -> None:
        """Replace a file's content, or make it, with the security of the file `like`, or of the folder's first file.

        Raises OSError EOPNOTSUPP for a sparse file, and as `read`.
        """
        self._change("write", path, data, like=like)

    def mkdir(self, path: str, *, like: str | None = None) -> None:
        self._change("mkdir", path, like=like)

    def unlink(self, path: str) -> None:
        self._change("unlink", path)

    def _change(self, operation: str, path: str, data: bytes = b"", **arguments: object) -> None:
        self._entries.clear()
        self._names.clear()
        try:
            self._tool.ask(operation, data, path=path, **arguments)
        except BaseException:
            self._spoiled = True
            raise
        self._changed = True

    def changed_blocks(self) -> VolumeChanges:
        """For the image. The volume is closed then. Raises MigrationFailed (`ntfs-tool-died`, `ntfs-tool-faulty`)."""
        if self._spoiled:
            raise MigrationFailed(
                "guest-write-failed",
                f"the changes of {self._identity} are not complete",
                hint="Report this bug: a failed change was ignored",
            )
        if not self._changed:
            return changes_of(self._blocks, (), b"")
        found, data = self._tool.ask("commit")
        runs = found.get("runs")
        if not isinstance(runs, list):
            raise faulty("its changes are not understood")
        return changes_of(self._blocks, runs, data)


@contextmanager
def open_volume(blocks: Blocks, identity: str, *, read_only: bool = False) -> Iterator[NtfsVolume]:
    """The volume on `blocks`, which are only read. `identity` is its name in messages.

    Raises BrokenInstallation (`ntfs-library-missing`) and MigrationFailed (`ntfs-damaged`, and as `NtfsVolume`).
    """
    with tool.running(blocks) as process:
        try:
            process.ask(tool.OPENING, size=blocks.size, read_only=read_only)
        except OSError as error:
            raise _damaged(identity, error) from error
        yield NtfsVolume(process, blocks, identity)


def _damaged(identity: str, error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "ntfs-damaged",
        f"{identity}: the NTFS file system cannot be opened: {error.strerror or os.strerror(error.errno or errno.EIO)}",
        hint="Run chkdsk /f on it in the guest, shut the guest down with `shutdown /s /t 0`, then export it again",
    )


def _key(path: str) -> str:
    return "/".join(filter(None, path.split("/"))).upper()


def _lengths(path: str) -> list[int]:
    return [len(part) for part in path.split("/") if part]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 255 and "/" not in name and "\0" not in name
