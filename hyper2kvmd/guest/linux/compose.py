"""The guest's volumes, mounted as its own fstab specifies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.family import describe
from hyper2kvmd.guest.files.fat_root import FatRoot
from hyper2kvmd.guest.files.interface import Files
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.linux import fstab
from hyper2kvmd.guest.linux.devices import Devices
from hyper2kvmd.guest.linux.disk_evidence import evidence_in, multipath_maps
from hyper2kvmd.guest.linux.disk_order import DiskOrder, Evidence
from hyper2kvmd.guest.linux.locked import is_boot
from hyper2kvmd.guest.linux.root_search import LinuxRoot
from hyper2kvmd.guest.linux.subvolumes import writable_subvolume
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS
from hyper2kvmd.host.scratch import scratch_folder
from hyper2kvmd.model.disks import ESP_TYPES, Layout, Volume
from hyper2kvmd.model.machine import DiskIdentity, Firmware
from hyper2kvmd.volumes.fat import FatVolume

NEEDED = ("/usr", "/boot")
"""Mount points whose files repairs need."""
STATE, CLOUD_INIT = "/var", "/etc/cloud/cloud.cfg"
"""The instance that cloud-init has set up is below /var; other guests' /var is not needed."""
ESP_POINTS = ("/boot/efi", "/efi")
XBOOTLDR_TYPES = ("bc13c2ff-59e6-4262-a352-b275fd6f7172",)
UNLISTED = ((XBOOTLDR_TYPES, ("/boot",)), (ESP_TYPES, ("/efi", "/boot/efi", "/boot")))
"""Partition types that systemd mounts at the first empty one of these folders if fstab does not name them. Source:
systemd-gpt-auto-generator(8); /boot/efi is where others look."""


Place = tuple[Volume, str]
"""A volume and its mounted folder; "" for the whole volume."""


class Composition:
    """Mounts one volume after the other at the guest's own mount points. `warnings` lists those left out."""

    def __init__(
        self,
        access: Access,
        layout: Layout,
        root: LinuxRoot,
        *,
        read_only: bool,
        also: tuple[str, ...] = (),
        identities: tuple[DiskIdentity, ...] = (),
    ) -> None:
        """`also` are mount points to include besides those that repairs need; `identities` belong to the disks."""
        self._points = (*NEEDED, *ESP_POINTS, *also)
        self._access, self._layout, self._read_only = access, layout, read_only
        self._volume, self._subvolume, self._boot = root.volume, root.subvolume, root.boot
        self._locked, self._folders = root.locked, root.folders
        self._identities = identities
        self._evidence = Evidence(self._volume, holds_kernels=self._holds_kernels)
        self.devices = Devices(layout, self._volume)
        self.warnings: list[str] = []
        self.esp: str | None = None
        """Mount point of the EFI system partition in the tree, once it is mounted."""
        self._failed: set[Volume] = set()
        self._places: dict[str, Place] = {}
        """The mounted place for each mount point."""

    @contextmanager
    def mounted(self) -> Iterator[GuestTree]:
        with ExitStack() as stack:
            top = _nothing(stack) if self._locked else self._mount(stack, self._volume, self._read_only)
            tops: dict[Volume, Files] = {self._volume: top}
            mounts: dict[str, Files] = {"/": _folder(stack, top, self._subvolume)}
            self._places = {} if self._locked else {"/": (self._volume, self._subvolume)}
            for point, folder in self._folders if isinstance(top, ConfinedRoot) else ():
                if not top.exists(folder):
                    continue
                mounts[point] = _folder(stack, top, folder)
                self._places[point] = (self._volume, folder)
            self.devices = self._devices(GuestTree(mounts))
            text = GuestTree(mounts).text_or_empty("/etc/fstab")
            points = (*self._points, *((STATE,) if GuestTree(mounts).is_file(CLOUD_INIT) else ()))
            wanted = [entry for entry in fstab.entries(text) if entry.mount_point.rstrip("/") in points]
            for entry in sorted(wanted, key=lambda entry: entry.mount_point.count("/")):
                found = self._find(stack, tops, entry)
                if found is not None:
                    point = GuestTree(mounts).canonical(entry.mount_point)
                    mounts[point], self._places[point] = found
            if self._boot is not None and (boot := self._top(stack, tops, self._boot, "/boot")):
                mounts["/boot"] = boot
                self._places["/boot"] = (self._boot, "")
            for types, points in UNLISTED:
                self._add_unlisted(stack, tops, mounts, types, points)
            self.esp = self._esp(tops, mounts)
            self.devices = self._devices(GuestTree(mounts))
            self.warnings += [printable(warning) for warning in self.devices.warnings]
            if not self._read_only:
                self._unlock(stack, mounts)
            yield GuestTree(mounts)

    @contextmanager
    def writable(self, points: Iterable[str]) -> Iterator[GuestTree]:
        """A writable tree to commit edits in: only the file systems that were `mounted` at these points."""
        with ExitStack() as stack:
            tops: dict[Volume, Files] = {}
            mounts: dict[str, Files] = {}
            for point in points:
                volume, folder = self._places[point]
                if volume not in tops:
                    tops[volume] = self._mount(stack, volume, read_only=False)
                mounts[point] = _folder(stack, tops[volume], folder)
            self._unlock(stack, mounts)
            yield GuestTree(mounts)

    def _unlock(self, stack: ExitStack, mounts: Mapping[str, Files]) -> None:
        """Make subvolumes that are read-only by their own property writable, as long as `stack` is open."""
        for point, files in mounts.items():
            if isinstance(files, ConfinedRoot) and point in self._places:
                stack.enter_context(writable_subvolume(files))

    def system_disks(self, firmware: Firmware) -> tuple[int, ...]:
        """The disks that a firmware must start for this guest: those of its ESP, else of its /boot, else of its root.

        Empty if its files were not mounted.
        """
        points = ("/boot", "/") if firmware == "bios" else (self.esp or "", "/boot", "/")
        place = next((self._places[point] for point in points if point in self._places), None)
        return tuple(sorted({segment.disk for segment in place[0].segments})) if place else ()

    def _devices(self, tree: GuestTree) -> Devices:
        """The guest's names, by what its mounted files tell about its disks."""
        order = DiskOrder(self._layout, self._identities, evidence_in(tree, self._evidence))
        crypttab = tree.text_or_empty("/etc/crypttab")
        return Devices(self._layout, self._volume, crypttab, order=order, maps=multipath_maps(tree))

    def _holds_kernels(self, volume: Volume) -> bool:
        if volume == self._volume or volume.content not in FILE_SYSTEMS or volume.obstacle or not volume.stretches:
            return False
        try:
            with self._access.mount(volume, read_only=True) as handle:
                return is_boot(GuestTree({"/": ConfinedRoot(handle)}))
        except MigrationFailed as failure:
            if failure.kind is Kind.RETRY:
                raise
            return False

    def _mount(self, stack: ExitStack, volume: Volume, read_only: bool) -> Files:
        if volume.content == "vfat":
            return FatRoot(FatVolume(stack.enter_context(self._access.blocks(volume, read_only=read_only))))
        return ConfinedRoot(stack.enter_context(self._access.mount(volume, read_only=read_only)))

    def _find(self, stack: ExitStack, tops: dict[Volume, Files], entry: fstab.FstabEntry) -> tuple[Files, Place] | None:
        if "bind" in entry.options:
            return None
        volume = self.devices.find(entry.spec)
        if volume is None:
            self._leave_out(entry.mount_point, f"{entry.spec} matches no volume on these disks")
            return None
        subvolume = (entry.option("subvol") or "").strip("/") if volume.content == "btrfs" else ""
        if volume == self._volume and not subvolume:
            self._leave_out(entry.mount_point, f"{entry.spec} is the root itself")
            return None
        root = self._top(stack, tops, volume, entry.mount_point)
        if root is None:
            return None
        if subvolume and not root.exists(subvolume):
            self._leave_out(entry.mount_point, f"subvolume {subvolume} cannot be reached from the default one")
            return None
        return _folder(stack, root, subvolume), (volume, subvolume)

    def _top(self, stack: ExitStack, tops: dict[Volume, Files], volume: Volume, point: str) -> Files | None:
        if volume in tops:
            return tops[volume]
        if volume.obstacle or not volume.stretches:
            self._leave_out(point, f"{describe(volume)}: {volume.obstacle or 'cannot be addressed'}")
            return None
        try:
            tops[volume] = self._mount(stack, volume, self._read_only)
        except MigrationFailed as failure:
            if point.rstrip("/") in NEEDED or failure.kind is Kind.RETRY:
                raise
            self._failed.add(volume)
            self._leave_out(point, failure.message)
            return None
        return tops[volume]

    def _leave_out(self, point: str, reason: str) -> None:
        self.warnings.append(printable(f"{point} was not repaired: {reason}"))

    def _add_unlisted(
        self,
        stack: ExitStack,
        tops: dict[Volume, Files],
        mounts: dict[str, Files],
        types: tuple[str, ...],
        points: tuple[str, ...],
    ) -> None:
        """Mount the first volume of these types, unless it is mounted already.

        If no folder is free, an ESP gets a made-up /efi: the firmware reads it wherever the guest mounts it.
        """
        tree = GuestTree(mounts)
        volume = next((volume for volume in self._layout.volumes if volume.parttype in types), None)
        if volume is None or volume in tops or volume in self._failed or volume.content == "unknown":
            return
        empty = [point for point in points if tree.is_dir(point) and not tree.listdir(point)]
        place = next((point for point in empty if tree.canonical(point) not in mounts), None)
        if place is None and types == ESP_TYPES and not tree.exists("/efi"):
            place = "/efi"
        if place is None:
            self._leave_out(describe(volume), "fstab does not name it, and no folder is free for it")
            return
        root = self._top(stack, tops, volume, place)
        if root is not None:
            point = tree.canonical(place)
            mounts[point] = root
            self._places[point] = (volume, "")

    def _esp(self, tops: dict[Volume, Files], mounts: dict[str, Files]) -> str | None:
        found = [tops[volume] for volume in tops if volume.is_esp]
        return next((point for point, root in mounts.items() if any(root is esp for esp in found)), None)


def _folder(stack: ExitStack, top: Files, name: str) -> Files:
    """A folder of a file system, such as a btrfs subvolume, or all of it."""
    return stack.enter_context(top.folder(name)) if isinstance(top, ConfinedRoot) and name else top


def _nothing(stack: ExitStack) -> ConfinedRoot:
    """An empty folder in place of a root that cannot be read."""
    handle = os.open(stack.enter_context(scratch_folder()), os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, handle)
    return ConfinedRoot(handle)
