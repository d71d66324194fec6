"""Windows guests: found by their registry, repaired offline in files and hives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.guest.family import GuestDisks, OverlayDisks, describe
from hyper2kvmd.guest.files.fat_root import FatRoot
from hyper2kvmd.guest.files.interface import Files
from hyper2kvmd.guest.files.ntfs_root import NtfsRoot, ntfs_session
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.windows.boot_proof.prepared import PreparedWindows, prepare_windows
from hyper2kvmd.guest.windows.repair import stage_repairs
from hyper2kvmd.guest.windows.search import WindowsVolumes, choose, look
from hyper2kvmd.guest.windows.writing import write_volume
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.volumes.fat import FatVolume
from hyper2kvmd.volumes.ntfs.volume import NtfsVolume

ESP_POINT = "/<EFI>"
"""Where the EFI system partition is in the tree: Windows has no such name."""


@dataclass(frozen=True)
class FoundWindows:
    disks: GuestDisks
    volume: Volume
    """Of Windows."""
    found: WindowsVolumes

    def repair(self) -> Guest:
        """The changes of the volume of Windows are checked and written first, those of the EFI partition follow.

        Raises MigrationFailed: as inspection, drivers, registry and `write_volume` do.
        """
        disks, volume = self.disks, self.volume
        is_trial = disks.migration.dry_run
        with ntfs_session(disks.access, volume, read_only=is_trial) as session:
            with self._tree(session) as tree:
                guest = stage_repairs(disks, tree, self._esp_point)
                staged, contents, points = tree.mark(), tree.new_contents, tree.touched
            if is_trial or not points:
                return self._located(guest)
            with disks.ctx.step(f"Writing the repairs of {guest.os_name}"):
                tree = GuestTree({"/": NtfsRoot(session)})
                tree.restore(staged.where(lambda path: not _is_on_esp(path)))
                tree.commit()
                changed = session.changed_blocks()
        with disks.ctx.step("Checking and writing the volume of Windows"):
            inside = {path: data for path, data in contents.items() if not _is_on_esp(path)}
            write_volume(disks.access, volume, changed, inside)
            if self._esp is not None and ESP_POINT in points:
                with disks.access.blocks(self._esp) as blocks:
                    tree = GuestTree({ESP_POINT: FatRoot(FatVolume(blocks))})
                    tree.restore(staged.where(_is_on_esp))
                    tree.commit()
        return self._located(guest)

    def _located(self, guest: Guest) -> Guest:
        return guest.with_changes(root=describe(self.volume), system_disks=self._system_disks())

    @property
    def _esp(self) -> Volume | None:
        """The EFI system partition for UEFI: one on the disk of Windows before others."""
        if self.disks.firmware != "uefi":
            return None
        found = [volume for volume in self.disks.layout.volumes if volume.is_esp and volume.content == "vfat"]
        ours = {segment.disk for segment in self.volume.segments}
        return min(found, key=lambda volume: ours.isdisjoint({one.disk for one in volume.segments}), default=None)

    @property
    def _esp_point(self) -> str | None:
        return ESP_POINT if self._esp is not None else None

    @contextmanager
    def _tree(self, session: NtfsVolume) -> Iterator[GuestTree]:
        mounts: dict[str, Files] = {"/": NtfsRoot(session)}
        with ExitStack() as stack:
            if self._esp is not None:
                blocks = stack.enter_context(self.disks.access.blocks(self._esp, read_only=True))
                mounts[ESP_POINT] = FatRoot(FatVolume(blocks))
            yield GuestTree(mounts)

    def _system_disks(self) -> tuple[int, ...]:
        """The disks with the boot loader of the firmware, else that of Windows."""
        esp = (self._esp,) if self._esp is not None else ()
        volumes = esp if self.disks.firmware == "uefi" else self.found.loaders
        found = {segment.disk for volume in volumes or (self.volume,) for segment in volume.segments}
        return tuple(sorted(found))


def _is_on_esp(path: str) -> bool:
    return path.startswith(f"{ESP_POINT}/")


@dataclass(frozen=True)
class Windows:
    name: Literal["windows"] = "windows"
    unproven_hint: str = (
        "Boot the guest by hand and look at its screen: a blue screen names the fault. Or set verify: content"
    )

    def find(self, disks: GuestDisks, /) -> FoundWindows | None:
        """Raises MigrationFailed as `look` and `choose` do."""
        found = look(disks)
        volume = choose(found, disks.layout, disks.migration.root)
        return FoundWindows(disks, volume, found) if volume else None

    def prepare_boot(self, disks: OverlayDisks, /) -> PreparedWindows:
        return prepare_windows(disks)
