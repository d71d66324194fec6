"""How the service user reaches a guest's file systems: an interface, and the root helper behind it.

This module chooses the transport (a raw image's own descriptor, kernel NBD, or nbdfuse), asks the helper for
mounts, and proves at the end of each that what was written arrived.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hyper2kvmd import run
from hyper2kvmd.disk.export import WHOLE_DISK, Exporter, as_file, export
from hyper2kvmd.errors import BrokenInstallation, Kind, MigrationFailed
from hyper2kvmd.guest import rootside
from hyper2kvmd.guest.rootside import Export, Helper, MountRequest, Probed, Range
from hyper2kvmd.guest.rootside import default_helper as default_helper
from hyper2kvmd.model import Image, Segment, Volume

FILE_SYSTEMS = {
    "ext2": "ext4",
    "ext3": "ext4",
    "ext4": "ext4",
    "xfs": "xfs",
    "btrfs": "btrfs",
    "vfat": "vfat",
    "ntfs": "ntfs3",
}
"""Volume content to the kernel's name; ext4 mounts its forebears, and only it id-maps them."""
SEGMENTS_MAX = 64


class Access(Protocol):
    """An opened image whose volumes can be mounted, one or several at a time."""

    def mount(self, volume: Volume, *, read_only: bool = False) -> AbstractContextManager[int]:
        """A detached mount of `volume` as a directory fd, in which the service user acts as the guest's root.

        The block's end proves that everything written has reached the image. Raises MigrationFailed
        (`mount-failed`, `mount-unsupported`, `mount-busy`, `image-write-failed`).
        """
        ...


@dataclass(frozen=True)
class Reach:
    """What this host can do for the volumes that were asked about."""

    transport: Literal["nbd", "fuse"]
    """How a QCOW2 image gets to the kernel."""
    unmountable: tuple[tuple[Volume, str], ...] = ()
    """Volumes that hold a file system which cannot be mounted here, each with the reason."""


def check_helper(helper: Helper, volumes: tuple[Volume, ...]) -> Reach:
    """Ask the helper what this host can mount.

    Raises BrokenInstallation when repair could not work on this host, with the remedy: `helper-unreachable`,
    `tool-missing`, or `transport-missing` when neither NBD nor FUSE gets a QCOW2 image to the kernel.
    """
    wanted = sorted({FILE_SYSTEMS[volume.content] for volume in volumes if volume.content in FILE_SYSTEMS})
    kernel = rootside.probe(helper, "check", tuple(wanted))
    run.tool("qemu-storage-daemon")
    if not kernel.nbd:
        run.tool("nbdfuse")
        run.tool("fusermount3")
        missing = "/dev/fuse" if not os.access("/dev/fuse", os.R_OK | os.W_OK) else "loop devices"
        if missing == "/dev/fuse" or not kernel.loop:
            raise BrokenInstallation(
                "transport-missing",
                f"this host has neither NBD nor {missing}",
                hint="load the kernel module nbd, or fuse and loop (modprobe; in a container, on its host)",
            )
    obstacles = []
    for volume in volumes:
        if volume.content in FILE_SYSTEMS:
            obstacle = _obstacle(volume) or _kernel_obstacle(volume, kernel)
            if obstacle:
                obstacles.append((volume, obstacle))
    return Reach(transport="nbd" if kernel.nbd else "fuse", unmountable=tuple(obstacles))


@contextmanager
def open_image(image: Image, helper: Helper, folder: Path, *, backing: Image | None = None) -> Iterator[Access]:
    """Hold `image` open for mounts: raw as the file itself, qcow2 through a confined exporter in `folder`.

    `backing` is the image below a qcow2 that is an overlay of ours; what is written reaches the overlay alone.
    Raises what `check_helper`, `disk.export.export` and `disk.export.as_file` raise.
    """
    job = re.sub(r"[^A-Za-z0-9._-]", "-", folder.name)[:128] or "job"
    if image.format == "raw":
        handle = os.open(image.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield _Opened(helper, job, _FromFile(handle), _nobody)
        finally:
            os.close(handle)
        return
    below = (backing.path, backing.format) if backing else None
    if rootside.probe(helper, job, ()).nbd:
        usable = [volume for volume in image.layout.volumes if volume.content in FILE_SYSTEMS and not _obstacle(volume)]
        ranges = {_export_name(segment): segment for volume in usable for segment in volume.segments}
        every: dict[str, Segment | None] = {WHOLE_DISK: None, **ranges}
        with export(image.path, "qcow2", folder, exports=every, writable=True, backing=below) as exporter:
            yield _Opened(helper, job, _FromNbd(exporter, frozenset(ranges.values())), exporter.kill)
        return
    with (
        export(image.path, "qcow2", folder, exports={WHOLE_DISK: None}, writable=True, backing=below) as exporter,
        as_file(exporter) as handle,
    ):
        yield _Opened(helper, job, _FromFile(handle), exporter.kill)


def _nobody() -> None:
    """There is no exporter to kill below a raw image."""


class _Transport(Protocol):
    @contextmanager
    def request(self, job: str, volume: Volume, read_only: bool) -> Iterator[tuple[MountRequest, list[int]]]:
        """The request for a volume and the descriptors that go with it, which are ours for the block only."""
        ...


@dataclass(frozen=True)
class _FromFile:
    """One descriptor of the whole disk."""

    handle: int

    @contextmanager
    def request(self, job: str, volume: Volume, read_only: bool) -> Iterator[tuple[MountRequest, list[int]]]:
        ranges = tuple(Range(fd=0, offset=part.offset, length=part.length) for part in volume.segments)
        fstype = FILE_SYSTEMS[volume.content]
        request = MountRequest(job=job, transport="file", fstype=fstype, read_only=read_only, segments=ranges)
        yield request, [self.handle]


@dataclass(frozen=True)
class _FromNbd:
    """A negotiated socket for each range."""

    exporter: Exporter
    known: frozenset[Segment]

    @contextmanager
    def request(self, job: str, volume: Volume, read_only: bool) -> Iterator[tuple[MountRequest, list[int]]]:
        if not self.known.issuperset(volume.segments):
            raise _unsupported(volume, "it is not in the image's layout")
        sockets: list[socket.socket] = []
        try:
            ranges, exports = [], []
            for index, part in enumerate(volume.segments):
                negotiated = self.exporter.negotiate(_export_name(part))
                negotiated.sock.setblocking(True)
                sockets.append(negotiated.sock)
                ranges.append(Range(fd=index, offset=0, length=part.length))
                exports.append(Export(size=negotiated.size, flags=negotiated.flags))
            request = MountRequest(
                job=job,
                transport="nbd",
                fstype=FILE_SYSTEMS[volume.content],
                read_only=read_only,
                segments=tuple(ranges),
                nbd=tuple(exports),
            )
            yield request, [sock.fileno() for sock in sockets]
        finally:
            for sock in sockets:
                sock.close()


class _Opened:
    """Mounts of one image; no two of them ever share a byte of it."""

    def __init__(self, helper: Helper, job: str, transport: _Transport, kill_exporter: Callable[[], None]) -> None:
        self._helper, self._job, self._transport = helper, job, transport
        self._kill_exporter = kill_exporter
        self._mounted: list[Segment] = []

    @contextmanager
    def mount(self, volume: Volume, *, read_only: bool = False) -> Iterator[int]:
        obstacle = _obstacle(volume)
        if obstacle:
            raise _unsupported(volume, obstacle)
        if any(_overlap(part, other) for part in volume.segments for other in self._mounted):
            raise MigrationFailed(
                "mount-busy", f"{volume.name} is mounted already", hint="report this: two repairs met on one volume"
            )
        self._mounted.extend(volume.segments)
        try:
            with self._transport.request(self._job, volume, read_only) as (request, fds):
                mounted = self._ask(volume, request, fds)
            try:
                directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
                try:
                    yield directory
                    if not read_only:
                        _settle(directory, volume)
                finally:
                    os.close(directory)
            finally:
                os.close(mounted)
        finally:
            for part in volume.segments:
                self._mounted.remove(part)

    def _ask(self, volume: Volume, request: MountRequest, fds: list[int]) -> int:
        answer = rootside.mount(self._helper, request, fds, self._kill_exporter)
        if isinstance(answer, int):
            return answer
        if answer.error == "unsupported":
            raise _unsupported(volume, answer.message)
        raise MigrationFailed(
            "mount-failed",
            f"{volume.name} ({volume.content}) cannot be mounted: {answer.message} [{answer.error}]",
            hint="repair the file system in the source VM (fsck), shut it down cleanly and export it again",
        )


def _settle(directory: int, volume: Volume) -> None:
    """Everything to the image, and proof that the kernel met no error on the way: unmounting itself tells nothing."""
    failed = ctypes.CDLL(None, use_errno=True).syncfs(directory)
    reason = os.strerror(ctypes.get_errno()) if failed else ""
    if not reason and os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        reason = "the kernel found errors and made it read-only"
    if reason:
        raise MigrationFailed(
            "image-write-failed",
            f"what was written to {volume.name} did not all reach the image: {reason}",
            hint="check free space and storage of the conversion directory, then retry",
            kind=Kind.RETRY,
        )


def _overlap(one: Segment, other: Segment) -> bool:
    return one.offset < other.offset + other.length and other.offset < one.offset + one.length


def _export_name(segment: Segment) -> str:
    return f"{segment.offset}+{segment.length}"


# ---------------------------------------------------------------- what cannot be mounted


def _obstacle(volume: Volume) -> str | None:
    if volume.content not in FILE_SYSTEMS:
        return f"{volume.content} is not a file system that is mounted here"
    if volume.obstacle or not volume.segments:
        return volume.obstacle or "its place on the disk is not known"
    if volume.multi_device:
        return "its file system spans several devices"
    if len(volume.segments) > SEGMENTS_MAX:
        return f"it is scattered over {len(volume.segments)} places"
    return None


def _kernel_obstacle(volume: Volume, kernel: Probed) -> str | None:
    fstype = FILE_SYSTEMS[volume.content]
    if fstype not in kernel.fstypes:
        return f"this host's kernel has no {fstype}"
    if len(volume.segments) > 1 and not kernel.dm:
        return f"it lies in {len(volume.segments)} places and this host's kernel has no device-mapper to join them"
    return None


def _unsupported(volume: Volume, reason: str) -> MigrationFailed:
    return MigrationFailed(
        "mount-unsupported",
        f"{volume.name} ({volume.content}) cannot be mounted: {reason}",
        hint="load the kernel module that is named, or run the job on a host that has it",
        kind=Kind.OPERATOR,
    )
