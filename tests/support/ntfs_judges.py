"""What readers of other authors find on an NTFS volume: dissect.ntfs, libfsntfs and ntfs-3g."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dissect.ntfs import NTFS
from dissect.ntfs.c_ntfs import ATTRIBUTE_TYPE_CODE
from dissect.ntfs.mft import MftRecord
from dissect.util.stream import RangeStream

from tests.guests.windows.descriptors import Protection
from tests.support.disks import loop, sh

ROOT = 5
"""The number of the root folder's record; all below it but one are NTFS's own."""
FIRST_OF_USERS = 24


@dataclass(frozen=True)
class Entry:
    kind: Literal["file", "folder", "link"]
    """A link is anything with a reparse point."""
    size: int = 0
    digest: str = ""
    """SHA-256 of a file's data."""


Files = dict[str, Entry]
"""Everything on a volume by its path, without NTFS's own files."""


def files_of(disk: Path, offset: int, length: int) -> Files:
    """All files, on which all readers agree; ntfsfix finds nothing wrong."""
    found = by_dissect(disk, offset, length)
    mounted = by_ntfs_3g(disk, offset, length)
    assert found == mounted, differences(found, mounted)
    listed = by_libfsntfs(disk, offset)
    assert listed.keys() == found.keys(), sorted(listed.keys() ^ found.keys())
    assert [path for path, entry in found.items() if entry.kind == "file" and entry.size != listed[path]] == []
    check(disk, offset, length)
    return found


def differences(one: Files, other: Files) -> str:
    """The paths that are not the same in both, a line each."""
    paths = sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
    return "\n".join(f"{path}: {one.get(path)}, {other.get(path)}" for path in paths)


# ---------------------------------------------------------------- dissect.ntfs


@contextlib.contextmanager
def volume_of(disk: Path, offset: int, length: int) -> Iterator[NTFS]:
    with disk.open("rb") as file:
        yield NTFS(RangeStream(file, offset, length))


def by_dissect(disk: Path, offset: int, length: int) -> Files:
    with volume_of(disk, offset, length) as volume:
        return dict(_walk(volume.mft.get(ROOT), ""))


def read(disk: Path, offset: int, length: int, path: str) -> bytes:
    """A file's data; `file:stream` is that stream's."""
    with volume_of(disk, offset, length) as volume:
        name, _, stream = path.partition(":")
        content: bytes = volume.mft.get(name).open(stream).read()
        return content


def security_ids(disk: Path, offset: int, length: int) -> dict[str, int]:
    """The entry of $Secure that protects each file, which must exist; 0 for a descriptor in the file itself."""
    with volume_of(disk, offset, length) as volume:
        found = {}
        for path in by_dissect(disk, offset, length):
            (standard,) = volume.mft.get(path).attributes[ATTRIBUTE_TYPE_CODE.STANDARD_INFORMATION]
            found[path] = standard.attribute.security_id
        for number in set(found.values()) - {0}:
            assert volume.secure.lookup(number) is not None
        return found


def protection(disk: Path, offset: int, length: int, path: str) -> Protection:
    """By $Secure; the file must exist."""
    number = security_ids(disk, offset, length)[path]
    with volume_of(disk, offset, length) as volume:
        found = volume.secure.lookup(number)
        return Protection(found.owner, tuple((entry.sid, entry.mask) for entry in found.dacl.ace))


def _walk(folder: MftRecord, place: str) -> Iterator[tuple[str, Entry]]:
    for name, index in folder.listdir().items():
        record = index.dereference()
        path = f"{place}/{name}".lstrip("/")
        if record.segment < FIRST_OF_USERS:
            continue
        if record.is_reparse_point():
            yield path, Entry("link")
        elif record.is_dir():
            yield path, Entry("folder")
            yield from _walk(record, path)
        else:
            yield path, as_entry(record.open().read())


def as_entry(data: bytes) -> Entry:
    """A file with this content."""
    return Entry("file", len(data), hashlib.sha256(data).hexdigest())


# ---------------------------------------------------------------- ntfs-3g


@contextlib.contextmanager
def mounted_read_only(disk: Path, offset: int, length: int) -> Iterator[Path]:
    with loop(disk, offset=offset, length=length) as device, tempfile.TemporaryDirectory() as name:
        sh("ntfs-3g", "-o", "ro,norecover,streams_interface=windows", device, name)
        try:
            yield Path(name)
        finally:
            sh("umount", name)


def by_ntfs_3g(disk: Path, offset: int, length: int) -> Files:
    with mounted_read_only(disk, offset, length) as top:
        found = {}
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                path = Path(folder, name)
                found[str(path.relative_to(top))] = _entry(path)
        return found


def check(disk: Path, offset: int, length: int) -> None:
    """ntfsfix finds nothing to repair, and no change that is not finished."""
    with loop(disk, offset=offset, length=length) as device:
        done = subprocess.run(["ntfsfix", "--no-action", device], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "processed successfully" in done.stdout, done.stdout + done.stderr


def _entry(path: Path) -> Entry:
    if path.is_symlink():
        return Entry("link")
    return Entry("folder") if path.is_dir() else as_entry(path.read_bytes())


# ---------------------------------------------------------------- libfsntfs


def by_libfsntfs(disk: Path, offset: int) -> dict[str, int]:
    """Sizes by path."""
    with tempfile.TemporaryDirectory() as name:
        body = Path(name) / "body"
        sh("fsntfsinfo", "-H", "-B", body, "-o", str(offset), disk)
        lines = body.read_text().splitlines()
    sizes = {}
    for line in lines:
        _, path, record, _, _, _, size, *_ = line.split("|")
        name = path.replace("\\\\", "/").lstrip("/")
        is_part = name.endswith(" ($FILE_NAME)") or ":" in name
        if is_part or name.startswith("$Extend/") or int(record) < FIRST_OF_USERS:
            continue
        sizes[name] = int(size)
    return sizes
