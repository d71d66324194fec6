"""Names of block devices as guests write them, and the volumes that they refer to.

For a word in fstab or on a kernel command line, this module determines the volume, and a name that does not change
with the hypervisor. Sources: fstab(5), udev's persistent storage rules, device-mapper's name mangling (`-` in a VG
or LV name is doubled).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from hyper2kvmd.guest.linux.disk_names import parse
from hyper2kvmd.guest.linux.disk_order import MEMBERS, DiskOrder
from hyper2kvmd.model.disks import Layout, Volume

BY_ID = "/dev/disk/by-id/"
DM_NAME = f"{BY_ID}dm-name-"
COUNTED_LATE = re.compile(r"/dev/(?:dm-\d+|root|disk/by-id/dm-name-.+)")
"""Names that are given out in the order of starting, and links that some initramfs do not have."""
ARRAY = re.compile(r"/dev/(?:md/|md(?=\d+$))(.+)")
OCTAL = re.compile(r"\\([0-7]{3})")
UDEV_HEX = re.compile(r"\\x([0-9a-fA-F]{2})")
CRYPTTAB_NAME = re.compile(r"^[ \t]*([^\s#]+)[ \t]+\S", re.MULTILINE)
IN_SOFTWARE = re.compile(
    r"/dev/(?:sr\d+|scd\d+|cdrom\S*|cdrw\S*|dvd\S*|fd\d+|floppy\S*|usb\S*|zram\d+|ram\d+|loop\d+|fuse|shm|nfs|null|zero)"
)
"""Devices that are not on a disk of the machine: drives of removable media, and those that the guest makes."""

INCOMPLETE = "has a part on a disk that is not among the disks of this migration"

TAGS: tuple[tuple[str, str, Callable[[Volume], str | None]], ...] = (
    ("UUID", "by-uuid", lambda volume: volume.uuid),
    ("PARTUUID", "by-partuuid", lambda volume: volume.partuuid),
    ("LABEL", "by-label", lambda volume: volume.label),
    ("PARTLABEL", "by-partlabel", lambda volume: volume.partlabel),
)
"""In the order of preference for a stable name."""
TAG_NAMES = tuple(name for name, _, _ in TAGS)


class Devices:
    """The volumes of one guest, by every name that it may use for them."""

    def __init__(
        self,
        layout: Layout,
        root: Volume | None = None,
        crypttab: str = "",
        *,
        order: DiskOrder | None = None,
        maps: Mapping[str, str] | None = None,
    ) -> None:
        """`crypttab` is the guest's: it names the opened LUKS containers. `maps` are its multipath maps, by WWID."""
        self._layout, self._volumes, self._root = layout, layout.volumes, root
        self._order, self._maps = order or DiskOrder(layout), maps or {}
        self._declared = set(CRYPTTAB_NAME.findall(crypttab))
        self._decrypted: dict[str, Volume] = {}
        self._decrypted |= self._decrypted_names(crypttab)

    @property
    def warnings(self) -> list[str]:
        """Contradictions between the guest's names of its disks, and assumptions about them."""
        return self._order.warnings

    @property
    def volumes(self) -> tuple[Volume, ...]:
        return self._volumes

    def is_unstable(self, spec: str) -> bool:
        """True for a name that depends on the order, the bus or the make of the disks."""
        return parse(spec, self._maps) is not None or COUNTED_LATE.fullmatch(spec) is not None

    def absent(self, spec: str) -> str | None:
        """Why a device is not on the disks, as text to follow its name; None if it is there or not on a disk at all."""
        if not (spec.startswith("/dev/") or spec.partition("=")[0] in TAG_NAMES) or IN_SOFTWARE.fullmatch(spec):
            return None
        volume = self.find(spec)
        if volume is not None:
            return INCOMPLETE if volume.incomplete else None
        if self._is_made_by_guest(spec):
            return None
        found = self._tagged(spec)
        if found and all(volume.multi_device for volume in found):
            return None
        if found:
            return f"matches {' and '.join(volume.name for volume in found)}, which have the same identifier"
        name = parse(spec, self._maps)
        if name is not None and self._order.is_unclear(name):
            return "could be several of these disks"
        return self.why_missing(may_be_locked=name is None)

    def why_missing(self, *, may_be_locked: bool) -> str | None:
        """The fact about a name that no volume has; None if it `may_be_locked` in a container without its key."""
        closed = [volume for volume in self._volumes if volume.obstacle]
        if may_be_locked and any(volume.kind == "luks" for volume in closed):
            return None
        return "matches no volume that can be read" if closed else "matches no volume on these disks"

    def _is_made_by_guest(self, spec: str) -> bool:
        """Arrays and containers whose names the guest chooses when it starts them."""
        kinds = {volume.kind for volume in self._volumes}
        if spec.startswith(("/dev/md", f"{BY_ID}md-")):
            return "md" in kinds
        if spec.startswith(f"{BY_ID}dm-uuid-LVM-"):
            return "lv" in kinds
        if spec.startswith(f"{BY_ID}lvm-pv-uuid-"):
            wanted = spec.removeprefix(f"{BY_ID}lvm-pv-uuid-")
            return any(volume.content == "LVM2_member" and volume.uuid == wanted for volume in self._volumes)
        name = spec.removeprefix("/dev/mapper/").removeprefix(DM_NAME)
        if name == spec:
            return False
        return name in self._declared or ("luks" in kinds and parse(spec, self._maps) is None)

    def find(self, spec: str) -> Volume | None:
        """The volume of a spec (`/dev/sda1`, `UUID=...`, `/dev/mapper/vg-lv`), or None if it cannot be determined.

        `spec` may contain fstab's octal escapes and quotes.
        """
        spec = OCTAL.sub(lambda match: chr(int(match[1], 8)), spec).strip("\"'")
        if spec == "/dev/root":
            return self._root
        found = self._tagged(spec)
        if found is not None:
            return found[0] if len(found) == 1 else None
        name = parse(spec, self._maps)
        if name is not None:
            return self._order.volume_of(name)
        return self._by_dm_name(spec) or self._by_array(spec)

    def _tagged(self, spec: str) -> list[Volume] | None:
        """The volumes with the tag that `spec` is; None if it is no tag."""
        tag, equals, value = spec.partition("=")
        for name, link, attribute in TAGS:
            if equals and tag == name:
                return self._with_tag(name, attribute, value.strip("\"'"))
            if spec.startswith(f"/dev/disk/{link}/"):
                text = UDEV_HEX.sub(lambda match: chr(int(match[1], 16)), spec.rpartition("/")[2])
                return self._with_tag(name, attribute, text)
        return None

    def _with_tag(self, tag: str, attribute: Callable[[Volume], str | None], value: str) -> list[Volume]:
        fold = str.lower if tag in ("UUID", "PARTUUID") else str
        return [volume for volume in self._volumes if value and fold(attribute(volume) or "") == fold(value)]

    def whole_disk(self, spec: str) -> int | None:
        """The disk, from 0, to which a name without a partition refers."""
        name = parse(spec, self._maps)
        return self._order.disk_of(name) if name is not None and name.number is None else None

    def _by_dm_name(self, spec: str) -> Volume | None:
        volumes = [volume for volume in self._volumes if volume.kind == "lv"]
        if re.fullmatch(r"/dev/dm-\d+", spec):
            lonely = len(volumes) == 1 and not any(volume.content == "crypto_LUKS" for volume in self._volumes)
            return volumes[0] if lonely and spec == "/dev/dm-0" else None
        name = spec.removeprefix("/dev/mapper/").removeprefix(DM_NAME)
        if name != spec and name in self._decrypted:
            return self._decrypted[name]
        for volume in volumes:
            if spec == f"/dev/{volume.vg}/{volume.lv}" or (name != spec and name == dm_name(volume)):
                return volume
        return None

    def _decrypted_names(self, crypttab: str) -> Iterator[tuple[str, Volume]]:
        """Name under /dev/mapper and volume: as in crypttab, and as an initramfs without crypttab names it."""
        insides = [volume for volume in self._volumes if volume.kind == "luks" and volume.stretches]
        by_container = {how.container: inside for inside in insides if (how := inside.stretches[0].crypt)}
        yield from ((f"luks-{container}", inside) for container, inside in by_container.items())
        for line in crypttab.splitlines():
            words = line.split()
            if len(words) >= 2 and not words[0].startswith("#"):
                container = self.find(words[1])
                if container is not None and container.uuid in by_container:
                    yield words[0], by_container[container.uuid]

    def _by_array(self, spec: str) -> Volume | None:
        """An md array by the name in its superblock; names such as /dev/md127 are assigned at each start."""
        match = ARRAY.fullmatch(spec)
        found = [volume for volume in self._volumes if match and volume.array == match[1]]
        return found[0] if len(found) == 1 else None

    def stable(self, volume: Volume, *, without_initramfs: bool = False) -> str | None:
        """`UUID=...`, else PARTUUID, LABEL, PARTLABEL; None if the volume has no unique name.

        The kernel itself, `without_initramfs`, supports only PARTUUID.
        """
        if volume.content in MEMBERS:
            return None
        tag = self._tag(volume, ("PARTUUID",) if without_initramfs else ("UUID", "PARTUUID", "LABEL", "PARTLABEL"))
        return f"{tag[0]}={tag[2]}" if tag else None

    def stable_path(self, volume: Volume, *, rewritten: bool = False) -> str | None:
        """As `stable`, but the path of udev's link, for programs that do not support tags.

        A volume whose content is `rewritten` at every boot is identified only by the partition table.
        """
        tag = self._tag(volume, ("PARTUUID",) if rewritten else ("UUID", "PARTUUID"))
        return f"/dev/disk/{tag[1]}/{tag[2]}" if tag else None

    def _tag(self, volume: Volume, wanted: tuple[str, ...]) -> tuple[str, str, str] | None:
        """Tag, folder of links and value of the first wanted name that is unique to this volume."""
        for name, link, attribute in TAGS:
            value = attribute(volume)
            if name not in wanted or not value or self._with_tag(name, attribute, value) != [volume]:
                continue
            if re.fullmatch(r"[^\s\"'#\\$`;]+", value):
                return name, link, value
        return None

    def virtio_name(self, volume: Volume) -> str:
        """The kernel's name of a partition or whole disk on virtio, for programs that support no stable name."""
        return virtio_disk(volume.disk) + str(volume.number or "")

    def for_kernel(self, volume: Volume, *, without_initramfs: bool = False) -> str | None:
        """The value for `root=` and `resume=`: a logical volume by its mapper name, anything else as `stable`.

        The mapper name is needed because many initramfs activate only the volume named there.
        """
        if volume.kind == "lv":
            return f"/dev/mapper/{dm_name(volume)}"
        return self.stable(volume, without_initramfs=without_initramfs)


def dm_name(volume: Volume) -> str:
    """A logical volume's name under /dev/mapper."""
    return f"{(volume.vg or '').replace('-', '--')}-{(volume.lv or '').replace('-', '--')}"


def virtio_disk(index: int) -> str:
    """0 is /dev/vda, 26 is /dev/vdaa."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"/dev/vd{letters}"
