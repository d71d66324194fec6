"""A guest whose root is in a locked LUKS container: the volumes outside of it.

Unless GRUB asks for the key itself, the kernels are outside, on a separate volume, which is /boot in the guest.
"""

from __future__ import annotations

from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS
from hyper2kvmd.model.disks import Layout, Volume

AT_THE_TOP = ("/vmlinu?*", "/grub*/grub.cfg", "/loader/entries/*.conf")
"""Files in a volume that is /boot."""


def closed(layout: Layout) -> tuple[Volume, ...]:
    """The volumes in containers that no key has opened."""
    return tuple(volume for volume in layout.volumes if volume.kind == "luks" and volume.obstacle)


def is_boot(tree: GuestTree) -> bool:
    """Whether a volume is /boot, by its files."""
    return any(tree.glob(pattern) for pattern in AT_THE_TOP)


def find_boot(access: Access, layout: Layout) -> Volume | None:
    """The volume with the kernels. Raises MigrationFailed for a volume that cannot be mounted."""
    for volume in layout.volumes:
        if volume.content not in FILE_SYSTEMS or volume.obstacle or not volume.stretches:
            continue
        with access.mount(volume, read_only=True) as handle:
            if is_boot(GuestTree({"/": ConfinedRoot(handle)})):
                return volume
    return None
