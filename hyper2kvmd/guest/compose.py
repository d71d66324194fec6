"""The guest's mounted volumes, put together as its own fstab says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest import fstab
from hyper2kvmd.guest.access import Access
from hyper2kvmd.guest.devices import Devices
from hyper2kvmd.guest.inspect import describe
from hyper2kvmd.guest.root import ConfinedRoot
from hyper2kvmd.guest.tree import GuestTree, printable
from hyper2kvmd.model import Layout, Volume

NEEDED = ("/usr", "/boot")
"""Mount points whose files repairs need."""
ESP_POINTS = ("/boot/efi", "/efi")
ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")


class Composition:
    """Mounts, one volume after the other, under the guest's own mount points. `warnings` says what is left out."""

    def __init__(
        self,
        access: Access,
        layout: Layout,
        volume: Volume,
        subvolume: str,
        *,
        read_only: bool,
        also: tuple[str, ...] = (),
    ) -> None:
        """`also` are mount points to include beside those that repairs need."""
        self._points = (*NEEDED, *ESP_POINTS, *also)
        self._access, self._layout, self._read_only = access, layout, read_only
        self._volume, self._subvolume = volume, subvolume
        self.devices = Devices([layout], volume)
        self.warnings: list[str] = []

    @contextmanager
    def mounted(self) -> Iterator[GuestTree]:
        with ExitStack() as stack:
            top = self._mount(stack, self._volume)
            tops = {self._volume: top}
            mounts = {"/": stack.enter_context(top.folder(self._subvolume)) if self._subvolume else top}
            text = GuestTree(mounts).text_or_empty("/etc/fstab")
            wanted = [entry for entry in fstab.entries(text) if entry.mount_point.rstrip("/") in self._points]
            for entry in sorted(wanted, key=lambda entry: entry.mount_point.count("/")):
                root = self._find(stack, tops, entry)
                if root is not None:
                    mounts[GuestTree(mounts).canonical(entry.mount_point)] = root
            if not any(entry.mount_point.rstrip("/") in ESP_POINTS for entry in wanted):
                self._add_unlisted_esp(stack, tops, mounts)
            yield GuestTree(mounts)

    def _mount(self, stack: ExitStack, volume: Volume) -> ConfinedRoot:
        return ConfinedRoot(stack.enter_context(self._access.mount(volume, read_only=self._read_only)))

    def _find(self, stack: ExitStack, tops: dict[Volume, ConfinedRoot], entry: fstab.Entry) -> ConfinedRoot | None:
        if "bind" in entry.options:
            return None
        volume = self.devices.find(entry.spec)
        if volume is None:
            self._leave_out(entry.mount_point, f"{entry.spec} names no volume of this disk")
            return None
        subvolume = (entry.option("subvol") or "").strip("/") if volume.content == "btrfs" else ""
        if volume == self._volume and not subvolume:
            self._leave_out(entry.mount_point, f"{entry.spec} is the root itself")
            return None
        root = self._top(stack, tops, volume, entry.mount_point)
        if root is None or not subvolume:
            return root
        if not root.exists(subvolume):
            self._leave_out(entry.mount_point, f"subvolume {subvolume} cannot be reached from the default one")
            return None
        return stack.enter_context(root.folder(subvolume))

    def _top(
        self, stack: ExitStack, tops: dict[Volume, ConfinedRoot], volume: Volume, point: str
    ) -> ConfinedRoot | None:
        if volume in tops:
            return tops[volume]
        if volume.obstacle or not volume.segments:
            self._leave_out(point, f"{describe(volume)}: {volume.obstacle or 'cannot be addressed'}")
            return None
        try:
            tops[volume] = self._mount(stack, volume)
        except MigrationFailed as failure:
            if point.rstrip("/") in NEEDED and volume.content != "vfat":
                raise
            self._leave_out(point, failure.message)
            return None
        return tops[volume]

    def _leave_out(self, point: str, reason: str) -> None:
        self.warnings.append(printable(f"{point} was not repaired: {reason}"))

    def _add_unlisted_esp(
        self, stack: ExitStack, tops: dict[Volume, ConfinedRoot], mounts: dict[str, ConfinedRoot]
    ) -> None:
        """systemd mounts an EFI partition that fstab does not list at an empty /efi or /boot by itself."""
        tree = GuestTree(mounts)
        esp = next((volume for volume in self._layout.volumes if volume.parttype in ESP_TYPES), None)
        if esp is None or esp.content != "vfat" or esp in tops:
            return
        for point in ("/efi", "/boot/efi", "/boot"):
            if tree.is_dir(point) and not tree.listdir(point) and tree.canonical(point) not in mounts:
                root = self._top(stack, tops, esp, point)
                if root is not None:
                    mounts[tree.canonical(point)] = root
                return
