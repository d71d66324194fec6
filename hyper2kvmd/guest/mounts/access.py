"""The service user's access to a guest's file systems: an interface, and the root helper behind it.

This module chooses the transport (a raw image's own descriptor, kernel NBD, or nbdfuse), asks the helper for
mounts, and proves at the end of each that all writes arrived.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hyper2kvmd.disk.qemu import nbd
from hyper2kvmd.disk.qemu.export import WHOLE_DISK, Backing, Exporter, as_file, export
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.mounts import rootside
from hyper2kvmd.guest.mounts.channel import died
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS, obstacle, unsupported
from hyper2kvmd.guest.mounts.rootside import (
    Decrypted,
    Export,
    Helper,
    Joined,
    Leg,
    MountRequest,
    Refused,
)
from hyper2kvmd.guest.mounts.rootside import default_helper as default_helper
from hyper2kvmd.model.disks import Image, Layout, Segment, Volume
from hyper2kvmd.volumes import luks
from hyper2kvmd.volumes.fat import Blocks
from hyper2kvmd.volumes.features import kernel_version, unknown_features
from hyper2kvmd.volumes.mapping import OpenDisks
from hyper2kvmd.volumes.superblock import BlockReader
from hyper2kvmd.volumes.window import FileDisk, Window, WritableDisk


class Access(Protocol):
    """A machine's opened disks, whose volumes can be mounted, one or several at a time."""

    @property
    def replayed(self) -> tuple[Volume, ...]:
        """Volumes that changed because a read-only mount needed their journal replayed."""
        ...

    def mount(self, volume: Volume, *, read_only: bool = False) -> AbstractContextManager[int]:
        """A detached mount of `volume` as a directory fd, in which the service user acts as the guest's root.

        A read-only mount changes no byte of the image, unless a journal must be replayed to read the file system: see
        `replayed`. The end of the block proves that all writes have reached the image. Raises MigrationFailed
        (`mount-failed`, `mount-unsupported`, `mount-busy`, `volume-locked`, `image-write-failed`, `guest-io-error`).
        """
        ...

    def blocks(self, volume: Volume, *, read_only: bool = False) -> AbstractContextManager[Blocks]:
        """The bytes of a volume, for work on its file system without root and without a mount.

        Raises MigrationFailed (`mount-unsupported`, `mount-busy`).
        """
        ...


@contextmanager
def open_image(
    image: Image,
    helper: Helper,
    folder: Path,
    keys: Sequence[bytes] = (),
    *,
    backing: Sequence[Backing | None] = (),
    before_change: Callable[[], None] = lambda: None,
) -> Iterator[Access]:
    """Hold all disks of `image` open for mounts: raw as files, qcow2 through confined exporters in `folder`.

    `keys` are tried on the LUKS containers of volumes, as `volumes.layout.read_layout` does. `backing` has the
    disk below each QCOW2 that is an overlay of ours, None for zeros; writes reach only the overlay. `before_change` is
    called before anything can change a byte. Raises as `rootside.probe`, `disk.qemu.export.export` and
    `disk.qemu.export.as_file` do.
    """
    job = re.sub(r"[^A-Za-z0-9._-]", "-", folder.name)[:128] or "job"
    with ExitStack() as stack:
        if image.format == "raw":
            handles = tuple(_raw(stack, disk.path) for disk in image.disks)
            vault = _Vault(image.layout, tuple(FileDisk(handle) for handle in handles), keys)
            yield stack.enter_context(closing(_Opened(helper, job, _FromFile(handles), vault, (), before_change)))
            return
        ranges: list[dict[str, Segment]] = [{} for _ in image.disks]
        mountable = [volume for volume in image.layout.volumes if not obstacle(volume)]
        # if there is nothing to mount, neither the kernel nor the helper is needed
        by_nbd = not mountable or rootside.probe(helper, job, ()).nbd
        for volume in mountable if by_nbd else ():
            for segment in volume.segments:
                ranges[segment.disk][_export_name(segment)] = segment
        exporters = tuple(
            stack.enter_context(
                export(
                    disk.path,
                    "qcow2",
                    folder,
                    exports={WHOLE_DISK: None, **ranges[number]},
                    writable=True,
                    backing=backing[number] if backing else None,
                )
            )
            for number, disk in enumerate(image.disks)
        )
        transport: _Transport
        if by_nbd:
            known = frozenset(segment for found in ranges for segment in found.values())
            transport = _FromNbd(exporters, known)
        else:
            transport = _FromFile(tuple(stack.enter_context(as_file(exporter)) for exporter in exporters))
        readers = tuple(stack.enter_context(nbd.NbdReader(exporter.socket, WHOLE_DISK)) for exporter in exporters)
        vault = _Vault(image.layout, readers, keys)
        yield stack.enter_context(closing(_Opened(helper, job, transport, vault, exporters, before_change)))


def _raw(stack: ExitStack, path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    stack.callback(os.close, handle)
    return handle


@dataclass(frozen=True)
class _Vault:
    """Volume keys, read from the containers' headers when a mount needs them."""

    layout: Layout
    readers: tuple[BlockReader, ...]
    keys: Sequence[bytes]

    def open(self, uuid: str) -> bytes:
        """The volume key of the container `uuid`. Raises luks.Locked."""
        for volume in self.layout.volumes:
            if volume.content == "crypto_LUKS" and volume.uuid == uuid:
                machine = OpenDisks(self.readers)
                return luks.unlock(machine.reader(volume.stretches), self.keys, machine.budget).key
        raise luks.Locked(f"its container {uuid} is not in the images' layout")

    def unknown_features(self, volume: Volume) -> tuple[str, ...]:
        """Of its file system, on this kernel. Encrypted ones are not looked into."""
        if any(stretch.crypt for stretch in volume.stretches):
            return ()
        return unknown_features(volume.content, OpenDisks(self.readers).reader(volume.stretches), kernel_version())


class _Transport(Protocol):
    @property
    def name(self) -> Literal["file", "nbd"]: ...

    def disks(self, stack: ExitStack, /) -> tuple[WritableDisk, ...]:
        """The whole disks, through the transport of the mounts: both always see the same bytes."""
        ...

    def share(self, stack: ExitStack, volume: Volume, /) -> tuple[list[int], list[Leg], tuple[Export, ...]]:
        """Descriptors that are valid as long as `stack`, the volume's segments in them, and the NBD exports."""
        ...


@dataclass(frozen=True)
class _FromFile:
    """One descriptor of each whole disk."""

    handles: tuple[int, ...]
    name: Literal["file"] = "file"

    def disks(self, _stack: ExitStack, /) -> tuple[WritableDisk, ...]:
        return tuple(FileDisk(handle) for handle in self.handles)

    def share(self, _stack: ExitStack, volume: Volume, /) -> tuple[list[int], list[Leg], tuple[Export, ...]]:
        used = sorted({part.disk for part in volume.segments})
        legs = [Leg(fd=used.index(part.disk), offset=part.offset, length=part.length) for part in volume.segments]
        return [self.handles[disk] for disk in used], legs, ()


@dataclass(frozen=True)
class _FromNbd:
    """A negotiated socket for each range."""

    exporters: tuple[Exporter, ...]
    known: frozenset[Segment]
    name: Literal["nbd"] = "nbd"

    def disks(self, stack: ExitStack, /) -> tuple[WritableDisk, ...]:
        return tuple(stack.enter_context(nbd.NbdWriter(exporter.socket, WHOLE_DISK)) for exporter in self.exporters)

    def share(self, stack: ExitStack, volume: Volume, /) -> tuple[list[int], list[Leg], tuple[Export, ...]]:
        if not self.known.issuperset(volume.segments):
            raise unsupported(volume, "it is not in the images' layout")
        sockets, exports = [], []
        for part in volume.segments:
            negotiated = self.exporters[part.disk].negotiate(_export_name(part))
            negotiated.sock.setblocking(True)
            sockets.append(stack.enter_context(negotiated.sock).fileno())
            exports.append(Export(size=negotiated.size, flags=negotiated.flags))
        legs = [Leg(fd=index, offset=0, length=part.length) for index, part in enumerate(volume.segments)]
        return sockets, legs, tuple(exports)


class _Opened:
    """Mounts of one machine's disks; no two of them ever share a byte."""

    def __init__(
        self,
        helper: Helper,
        job: str,
        transport: _Transport,
        vault: _Vault,
        exporters: tuple[Exporter, ...],
        before_change: Callable[[], None],
    ) -> None:
        self._before_change = before_change
        self._helper, self._job, self._transport, self._vault = helper, job, transport, vault
        self._exporters = exporters
        self._mounted: list[Segment] = []
        self._idle: dict[Volume, int] = {}
        """Unused read-only mounts, for the next inspection of the same volume: a mount takes the helper a while."""
        self._replayed: dict[Volume, None] = {}

    def close(self) -> None:
        while self._idle:
            os.close(self._idle.popitem()[1])

    @property
    def replayed(self) -> tuple[Volume, ...]:
        return tuple(self._replayed)

    @contextmanager
    def mount(self, volume: Volume, *, read_only: bool = False) -> Iterator[int]:
        if reason := obstacle(volume):
            raise unsupported(volume, reason)
        with self._claimed(volume):
            mounted, writable = self._attach(volume, read_only)
            try:
                directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
                try:
                    yield directory
                    if writable:
                        _flush(directory, volume)
                finally:
                    os.close(directory)
            finally:
                if writable:
                    os.close(mounted)
                else:
                    self._idle[volume] = mounted

    @contextmanager
    def blocks(self, volume: Volume, *, read_only: bool = False) -> Iterator[Blocks]:
        if volume.obstacle or not Window.reaches(volume.stretches):
            raise unsupported(volume, volume.obstacle or "its bytes are striped or encrypted")
        with self._claimed(volume), ExitStack() as stack:
            if not read_only:
                self._before_change()
            window = Window(self._transport.disks(stack), volume.stretches, read_only)
            yield window
            if not read_only:
                window.flush()

    @contextmanager
    def _claimed(self, volume: Volume) -> Iterator[None]:
        """No other mount shares a byte with the volume, except an idle mount of itself."""
        if any(_overlap(part, other) for part in volume.segments for other in self._mounted):
            raise MigrationFailed(
                "mount-busy", f"{volume.name} is mounted already", hint="Report this bug: two repairs used one volume"
            )
        for other in [other for other in self._idle if other != volume and _share_bytes(other, volume)]:
            os.close(self._idle.pop(other))
        self._mounted.extend(volume.segments)
        try:
            yield
        finally:
            for part in volume.segments:
                self._mounted.remove(part)

    def _request(self, lent: ExitStack, volume: Volume, read_only: bool) -> tuple[MountRequest, list[int]]:
        fds, legs, exports = self._transport.share(lent, volume)
        left = iter(legs)
        table = tuple(
            Joined(kind=stretch.kind, chunk=stretch.chunk, legs=tuple(next(left) for _ in stretch.legs))
            for stretch in volume.stretches
        )
        ciphers = [stretch.crypt for stretch in volume.stretches if stretch.crypt is not None]
        containers = sorted({how.container for how in ciphers})
        crypt = tuple(
            Decrypted(key=len(fds) + containers.index(how.container), cipher=how.cipher, sector=how.sector, iv=how.iv)
            for how in ciphers
        )
        try:
            keys = [_sealed(lent, self._vault.open(container)) for container in containers]
        except luks.Locked as reason:
            raise _locked(volume, str(reason)) from None
        request = MountRequest(
            job=self._job,
            transport=self._transport.name,
            fstype=FILE_SYSTEMS[volume.content],
            read_only=read_only,
            table=table,
            crypt=crypt,
            nbd=exports,
        )
        return request, [*fds, *keys]

    def _attach(self, volume: Volume, read_only: bool) -> tuple[int, bool]:
        """A mount, and whether it is writable, as is a read-only one if a dirty journal must be replayed."""
        idle = self._idle.pop(volume, None)
        if idle is not None:
            if read_only:
                return idle, False
            os.close(idle)
        answer = self._ask(volume, read_only)
        dirty = isinstance(answer, Refused) and answer.error == rootside.JOURNAL_DIRTY
        if dirty:
            answer = self._ask(volume, read_only=False)
        mounted = self._granted(volume, answer)
        if dirty:
            self._replayed[volume] = None
        return mounted, dirty or not read_only

    def _ask(self, volume: Volume, read_only: bool) -> int | Refused:
        if not read_only:
            self._before_change()
        with ExitStack() as lent:
            request, fds = self._request(lent, volume, read_only)
            return rootside.mount(self._helper, request, fds, self._kill_exporters)

    def _granted(self, volume: Volume, answer: int | Refused) -> int:
        if isinstance(answer, int):
            return answer
        if answer.error == rootside.KILLED:
            raise died(answer.message)
        if answer.error in rootside.DEVICE_FAULTS:
            raise io_error(f"{volume.name} ({volume.content}) cannot be mounted: {answer.message} [{answer.error}]")
        if answer.error == "unsupported":
            raise unsupported(volume, answer.message)
        if answer.error == "mount-failed" and (features := self._vault.unknown_features(volume)):
            raise _newer(volume, features)
        raise _not_mounted(volume, answer)

    def _kill_exporters(self) -> None:
        for exporter in self._exporters:
            exporter.kill()


def _not_mounted(volume: Volume, answer: Refused) -> MigrationFailed:
    return MigrationFailed(
        "mount-failed",
        f"{volume.name} ({volume.content}) cannot be mounted: {answer.message} [{answer.error}]",
        hint="Repair the file system in the source VM (fsck), shut it down cleanly, and export it again",
    )


def io_error(fact: str) -> MigrationFailed:
    """A fault of the host: of an exporter, a device or the storage of an image."""
    return MigrationFailed(
        "guest-io-error",
        fact,
        hint="Check the storage of the conversion directory (`dmesg`). If it has no errors, check the file system in"
        " the source VM (fsck), shut it down cleanly, and export it again",
        kind=Kind.RETRY,
    )


def _newer(volume: Volume, features: tuple[str, ...]) -> MigrationFailed:
    several = "s" if len(features) > 1 else ""
    return MigrationFailed(
        "mount-newer",
        f"{volume.name} ({volume.content}) cannot be mounted: this host's kernel {os.uname().release} does not have its"
        f" feature{several} {', '.join(features)}",
        hint="Run the job on a host with a newer kernel; nothing is damaged",
        kind=Kind.OPERATOR,
    )


def _sealed(lent: ExitStack, key: bytes) -> int:
    """A key in anonymous memory that cannot change."""
    handle = os.memfd_create("key", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    lent.callback(os.close, handle)
    os.write(handle, key)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return handle


def _flush(directory: int, volume: Volume) -> None:
    """Flush everything to the image, and check that the kernel met no error: unmounting does not report errors."""
    failed = ctypes.CDLL(None, use_errno=True).syncfs(directory)
    reason = os.strerror(ctypes.get_errno()) if failed else ""
    if not reason and os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        reason = "the kernel found errors and made it read-only"
    if reason:
        raise MigrationFailed(
            "image-write-failed",
            f"not all data written to {volume.name} reached the image: {reason}",
            hint="Check free space and storage of the conversion directory, then retry",
            kind=Kind.RETRY,
        )


def _share_bytes(one: Volume, other: Volume) -> bool:
    return any(_overlap(part, theirs) for part in one.segments for theirs in other.segments)


def _overlap(one: Segment, other: Segment) -> bool:
    same_disk = one.disk == other.disk
    return same_disk and one.offset < other.offset + other.length and other.offset < one.offset + one.length


def _export_name(segment: Segment) -> str:
    return f"{segment.offset}+{segment.length}"


def _locked(volume: Volume, reason: str) -> MigrationFailed:
    return MigrationFailed(
        "volume-locked",
        f"{volume.name} cannot be decrypted: {reason}",
        hint="Set luks_keyfile to a file with its passphrase or key",
    )
