"""Our side of a measurement: what the convert stage calls, in a process that has loaded it, as a worker has."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.engine.compare import first_difference
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.images.qcow2.reader import open_image
from hyper2kvmd.disk.sources.digests import DigestCheck
from hyper2kvmd.disk.sources.location import open_disk, open_stored
from hyper2kvmd.disk.sources.source import DiskSource
from hyper2kvmd.host.mandate import ANYONE
from hyper2kvmd.machines.archives.streams import Plain
from hyper2kvmd.machines.archives.tar import read_members
from hyper2kvmd.model.disks import ArchiveMember, Checksum, FileRef, LocalFile, StoredFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["convert", "compare"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compress", action="store_true")
    parser.add_argument("--sha256", action="store_true", help="verify the digest beside the copy")
    asked = parser.parse_args()
    at = location(asked.source)
    checksums = [sha256(at)] if asked.sha256 else []
    with open_disk(at, asked.target.parent) as source:  # as `plan` did
        data_bytes = source.data_bytes
        print("ready", flush=True)
        sys.stdin.readline()
        if asked.verb == "compare":
            compare(source, asked.target, asked.threads)
        else:
            image = NewImage(asked.target, "qcow2", data_bytes, compress=asked.compress)
            with verified(checksums):
                source.copy_into(image, copy.CopyLimits(threads=asked.threads), lambda _amounts: None)


def location(path: Path) -> FileRef:
    """The disk itself, or the only VMDK of an OVA."""
    if path.suffix != ".ova":
        return LocalFile(path=path)
    file = open_file(path)
    try:
        (member,) = (one for one in read_members(Plain(file), path) if one.name.endswith(".vmdk"))
    finally:
        os.close(file.fd)
    return ArchiveMember(archive=path, member=member.name, offset=member.offset, length=member.length)


def sha256(at: FileRef) -> Checksum:
    """As a manifest would say it, written once beside the archive."""
    path = at.archive if isinstance(at, ArchiveMember) else at.path
    note = path.with_suffix(".sha256")
    if not note.exists():
        first, length = (at.offset, at.length) if isinstance(at, ArchiveMember) else (0, path.stat().st_size)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(first)
            while length and (data := file.read(min(length, 1 << 20))):
                digest.update(data)
                length -= len(data)
        note.write_text(digest.hexdigest())
    with open_stored(at, ANYONE) as file:
        stored = StoredFile(at=at, identity=file.identity)
    return Checksum(of=stored, algorithm="sha256", digest=note.read_text(), manifest="manifest")


@contextmanager
def verified(checksums: list[Checksum]) -> Iterator[None]:
    check = DigestCheck(checksums, ANYONE)
    check.start()
    yield
    check.finish(lambda _done: None)


def compare(source: DiskSource, image_path: Path, threads: int) -> None:
    with open_image(image_path, "qcow2") as image:
        found = first_difference(source, image, threads=threads)
    if found is not None:
        raise SystemExit(f"the source and {image_path} differ at offset {found}")


if __name__ == "__main__":
    main()
