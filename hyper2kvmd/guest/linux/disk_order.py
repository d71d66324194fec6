"""Decides which disk of the machine a guest meant by `sda`, a multipath map or a by-path link.

The order of the disks in the guest can differ from the order in the list. The evidence, strongest first: the root that
was found; serial numbers and addresses of the source machine; labels and last mount points of file systems; partitions
and file systems that fstab expects; the order of the source's controllers, else of the list.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hyper2kvmd.guest.linux.disk_names import DiskName
from hyper2kvmd.guest.linux.disk_places import place_of
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.model.machine import DiskIdentity

ALIKE = ({"ext2", "ext3", "ext4"}, {"vfat", "msdos", "fat"}, {"swap", "swsuspend"}, {"ntfs", "ntfs-3g", "ntfs3"})
"""File systems that one driver mounts."""
PROBED = {"ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "swap", "ntfs"}
MEMBERS = ("LVM2_member", "linux_raid_member")
"""Parts of other volumes, to which no fstab and no command line can refer."""
RENAMED = ("sd", "hd", "xvd")
"""Names that one disk can have under different kernels."""


@dataclass(frozen=True)
class DiskUse:
    """A line of fstab whose device depends on hardware."""

    name: DiskName
    mount_point: str
    fs_type: str


@dataclass(frozen=True)
class Evidence:
    """What the guest tells about its disks."""

    root: Volume | None = None
    uses: tuple[DiskUse, ...] = ()
    root_names: tuple[DiskName, ...] = ()
    """The values of `root=` in its boot loader's configuration that depend on hardware."""
    holds_kernels: Callable[[Volume], bool] = lambda _volume: False
    """Whether a volume has the files of /boot."""


class DiskOrder:
    """The disk of each name. `warnings` lists contradictions and assumptions."""

    def __init__(
        self, layout: Layout, identities: Sequence[DiskIdentity] = (), evidence: Evidence = Evidence()
    ) -> None:
        self._layout, self._evidence = layout, evidence
        self._identities = tuple(identities) or (DiskIdentity(),) * len(layout.tables)
        self._disks = _in_order(self._identities)
        self._bound: dict[DiskName, int] = {}
        self._named = {_whole(use.name) for use in evidence.uses}
        self.warnings: list[str] = []
        self._bind_root()
        by_content = (self._by_traces, self._by_kernels)
        for decide in (self._exactly, *by_content, self._fitting_by_order, self._only_fitting, self._stale):
            self._bind(decide)

    def disk_of(self, name: DiskName) -> int | None:
        """The disk, from 0; None if it is not among the machine's disks, or unclear."""
        whole = self._renamed(_whole(name))
        if whole in self._bound:
            return self._bound[whole]
        for decide in (self._exactly, self._by_order, self._only_one_left):
            disk = decide(whole)
            if disk is not None:
                return disk
        return None

    def volume_of(self, name: DiskName) -> Volume | None:
        disk = self.disk_of(name)
        return None if disk is None else self._on_disk(disk, name.number)

    def is_unclear(self, name: DiskName) -> bool:
        """Whether a link by address or model fits several disks that no other name has."""
        whole = _whole(name)
        return name.group in ("id", "path") and self.disk_of(name) is None and len(self._candidates(whole)) > 1

    # ------------------------------------------------------------ the root

    def _bind_root(self) -> None:
        root = self._evidence.root
        if root is None or root.kind not in ("partition", "disk"):
            return
        in_fstab = [use.name for use in self._evidence.uses if use.mount_point == "/"]
        fitting = [name for name in in_fstab if name.number == root.number]
        for name in in_fstab:
            if name not in fitting:
                self.warnings.append(f"/etc/fstab has the root on {_numbered(name)}, but it was found on {root.name}")
        by_loader = {name for name in self._evidence.root_names if name.number == root.number}
        for name in () if by_loader else self._evidence.root_names:
            self.warnings.append(f"a kernel line has the root on {_numbered(name)}, but it was found on {root.name}")
        names = fitting or (list(by_loader) if len({_whole(name) for name in by_loader}) == 1 else [])
        for name in names:
            self._bound[_whole(name)] = root.disk
        for name in sorted(by_loader, key=_shown):
            if fitting and all(name.group == one.group and _whole(name) != _whole(one) for one in fitting):
                fact = f"the root is {_shown(fitting[0])} in /etc/fstab"
                self.warnings.append(f"{fact} and {_shown(name)} in the boot loader's configuration")

    # ------------------------------------------------------------ evidence for one name

    def _bind(self, decide: Callable[[DiskName], int | None]) -> None:
        """Bind every name that `decide` knows a disk for; each is decided before any of them is bound."""
        free = sorted(self._named - self._bound.keys(), key=_shown)
        found = {name: disk for name in free if (disk := decide(name)) is not None}
        for name, disk in found.items():
            rivals = [other for other in found if other.group == name.group and found[other] == disk]
            if len(rivals) == 1:
                self._bound[name] = disk

    def _exactly(self, name: DiskName) -> int | None:
        """By serial number or address, unless the root contradicts them."""
        if any(self._identified(known) not in (None, disk) for known, disk in self._bound.items()):
            return None
        return self._identified(name)

    def _identified(self, name: DiskName) -> int | None:
        if name.group == "serial":
            found = [disk for disk, one in enumerate(self._identities) if one.serial == name.name]
        else:
            found = [disk for disk, one in enumerate(self._identities) if place_of(name, one, self._identities)]
        return found[0] if len(found) == 1 else None

    def _by_traces(self, name: DiskName) -> int | None:
        """By a label or last mount point that is the mount point of fstab."""
        found = [
            disk
            for disk in self._candidates(name)
            if any(_traces(self._on_disk(disk, use.name.number), use.mount_point) for use in self._uses(name))
        ]
        return found[0] if len(found) == 1 else None

    def _by_kernels(self, name: DiskName) -> int | None:
        """/boot by its kernels, if several disks are possible."""
        numbers = [use.name.number for use in self._uses(name) if use.mount_point.rstrip("/") == "/boot"]
        candidates = self._candidates(name)
        if not numbers or len(candidates) < 2:
            return None
        found = [
            disk
            for disk in candidates
            if (volume := self._on_disk(disk, numbers[0])) and self._evidence.holds_kernels(volume)
        ]
        return found[0] if len(found) == 1 else None

    def _fitting_by_order(self, name: DiskName) -> int | None:
        disk = self._by_order(name)
        return disk if disk is not None and self._fits(name, disk) else None

    def _by_order(self, name: DiskName) -> int | None:
        """The disk at the name's place, when the disks and places that are known are left out."""
        index = self._position(name)
        if index is None:
            return None
        taken = {self._position(known) for known in self._bound if _family(known) == _family(name)}
        counted = self._counted_with(name)
        disks = [disk for disk in counted if disk not in self._taken(name)]
        places = [place for place in range(len(counted)) if place not in taken]
        if index not in places or len(places) != len(disks):
            return None
        return disks[places.index(index)]

    def _only_fitting(self, name: DiskName) -> int | None:
        """The only free disk that fits, if the order does not give one that does."""
        candidates = self._candidates(name)
        if len(candidates) != 1 or any(self._fits(rival, candidates[0]) for rival in self._unbound_rivals(name)):
            return None
        if _is_counted(name):
            if self._is_beyond(name):
                return None
            fact = f"{_shown(name)} is taken to be disk {candidates[0] + 1}"
            self.warnings.append(f"{fact}: no other disk has the partitions that /etc/fstab names")
        return candidates[0]

    def _stale(self, name: DiskName) -> int | None:
        """A name of an earlier bus, if all disks have other names in fstab: the only disk that fits."""
        if not _is_counted(name) or len(self._taken(name)) < len(self._disks):
            return None
        if any(_family(known) == _family(name) for known in self._bound):
            return None
        found = [disk for disk in self._disks if self._fits(name, disk)]
        if len(found) != 1:
            return None
        fact = f"{_shown(name)} is taken to be disk {found[0] + 1}"
        self.warnings.append(f"{fact}: it is a name beside those of all disks in /etc/fstab")
        return found[0]

    def _only_one_left(self, name: DiskName) -> int | None:
        """The only free disk, for a name without a meaningful order."""
        candidates = self._candidates(name)
        if len(candidates) != 1 or (_is_counted(name) and self._is_beyond(name)):
            return None
        return None if self._unbound_rivals(name) else candidates[0]

    # ------------------------------------------------------------ places

    def _candidates(self, name: DiskName) -> list[int]:
        """Disks that no other name of the group has, and that have what fstab expects of this one."""
        if name.group == "serial" and self._all_serials_known():
            return []
        taken = self._taken(name)
        return [disk for disk in self._disks if disk not in taken and self._fits(name, disk)]

    def _all_serials_known(self) -> bool:
        """Then a serial number of none of them is a missing disk's. Not if the root shows that they are wrong."""
        known = all(one.serial for one in self._identities)
        return known and all(
            self._identified(one) == disk for one, disk in self._bound.items() if one.group == "serial"
        )

    def _taken(self, name: DiskName) -> set[int]:
        """Disks that another name of the group has. A kernel line can have a name from before a change of the bus, so
        between `sd`, `nvme` and the like only those in fstab count.
        """
        rivals = {one for one in self._bound if one.group == name.group}
        return {self._bound[one] for one in rivals if _family(one) == _family(name) or one in self._named}

    def _unbound_rivals(self, name: DiskName) -> list[DiskName]:
        unbound = self._named - self._bound.keys() - {name}
        return [one for one in unbound if one.group == name.group]

    def _counted_with(self, name: DiskName) -> list[int]:
        """The disks among which the kernel counts this one: NVMe apart from the others, if all addresses are known.

        All disks, if a name that is known already shows that the names are older than the addresses.
        """
        buses = [one.address.bus if one.address else None for one in self._identities]
        if not _is_counted(name) or None in buses:
            return self._disks

        def agree(one: DiskName, disk: int) -> bool:
            return (_kind(one) == "nvme") == (buses[disk] == "nvme")

        if any(_is_counted(known) and not agree(known, disk) for known, disk in self._bound.items()):
            return self._disks
        alike = [disk for disk in range(len(buses)) if agree(name, disk)]
        order = _in_order([self._identities[disk] for disk in alike])
        return [alike[place] for place in order] or self._disks

    def _position(self, name: DiskName) -> int | None:
        """The place of a name among all disks; None if names of several controllers leave it open."""
        if name.index is None:
            return None
        peers = {one for one in {*self._named, *self._bound, name} if one.group == name.group and one.index is not None}
        peers = {one for one in peers if _kind(one) == _kind(name)}
        if _kind(name) == "nvme" and not any(one.index for one in peers):
            return int(name.family.removeprefix("nvme"))
        return name.index if len({one.family for one in peers}) == 1 else None

    def _is_beyond(self, name: DiskName) -> bool:
        """Whether the name counts more disks than there are."""
        index = self._position(name)
        return index is not None and index >= len(self._disks)

    def _renamed(self, name: DiskName) -> DiskName:
        """A stale name of another kernel's driver means the disk with that letter: `hda` is the `sda` of fstab."""
        families = {one.family for one in {*self._named, *self._bound} if one.family in RENAMED}
        if name.family not in RENAMED or len(families) != 1 or name.family in families:
            return name
        (family,) = families
        return replace(name, family=family, name=family + name.name.removeprefix(name.family))

    # ------------------------------------------------------------ volumes

    def _uses(self, name: DiskName) -> list[DiskUse]:
        return [use for use in self._evidence.uses if _whole(use.name) == name]

    def _fits(self, name: DiskName, disk: int) -> bool:
        """Whether the disk has every partition that fstab names, with its file system."""
        return all(self._can_be(use, self._on_disk(disk, use.name.number)) for use in self._uses(name))

    def _can_be(self, use: DiskUse, volume: Volume | None) -> bool:
        if volume is None or volume.content in MEMBERS or not can_hold(volume, use.fs_type):
            return False
        return volume != self._evidence.root or use.mount_point == "/" or volume.content == "btrfs"

    def _on_disk(self, disk: int, number: int | None) -> Volume | None:
        kind = "disk" if number is None else "partition"
        found = (one for one in self._layout.on_disk(disk) if one.kind == kind and one.number == number)
        return next(found, None)


def can_hold(volume: Volume, fs_type: str) -> bool:
    """Whether a volume with this content can be mounted with one of fstab's types."""
    types = set(fs_type.split(","))
    if volume.content == "unknown" or not types & PROBED.union(*ALIKE):
        return True
    return any(one == volume.content or any({one, volume.content} <= alike for alike in ALIKE) for one in types)


def _traces(volume: Volume | None, mount_point: str) -> bool:
    if volume is None or mount_point in ("/", "none", "swap"):
        return False
    point = mount_point.rstrip("/")
    return volume.mounted_at == point or (volume.label or "").lower() in (
        point.lower(),
        posixpath.basename(point).lower(),
    )


def _whole(name: DiskName) -> DiskName:
    return replace(name, number=None)


def _is_counted(name: DiskName) -> bool:
    """Whether the kernel counts the disks of the machine in these names."""
    return name.group == "kernel"


def _kind(name: DiskName) -> str:
    """`nvme` for all controllers, `path` for all links; else the family."""
    return "nvme" if name.family.startswith("nvme") else "path" if name.group == "path" else name.family


def _family(name: DiskName) -> tuple[str, str]:
    return name.group, _kind(name)


def _shown(name: DiskName) -> str:
    folders = {"path": "/dev/disk/by-path/", "id": "/dev/disk/by-id/", "map": "/dev/mapper/"}
    if name.group == "serial":
        return f"the disk with the serial number {name.name}"
    return folders.get(name.group, "/dev/") + name.name


def _numbered(name: DiskName) -> str:
    return _shown(name) if name.number is None else f"partition {name.number} of {_shown(name)}"


def _in_order(identities: Sequence[DiskIdentity]) -> list[int]:
    """The disks by their addresses, if all have one on the same kind of bus; else in the order of the list."""
    addresses = [one.address for one in identities]
    disks = list(range(len(identities)))
    if any(address is None for address in addresses) or len({one.bus for one in addresses if one}) != 1:
        return disks
    places = [(one.controller, one.unit) for one in addresses if one]
    return sorted(disks, key=lambda disk: places[disk]) if len(set(places)) == len(places) else disks
