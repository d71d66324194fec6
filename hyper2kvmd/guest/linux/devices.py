"""Names of block devices as guests write them, and the volumes that they refer to.

For a word in fstab or on a kernel command line, this module determines the volume, and a name that does not change
with the hypervisor. Sources: fstab(5), udev's persistent storage rules, device-mapper's name mangling (`-` in a VG
or LV name is doubled).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from hyper2kvmd.model.disks import Layout, Volume

UNSTABLE = re.compile(
    r"/dev/(?:"
    r"(?:[hsv]d|xvd)[a-z]+\d*|nvme\d+n\d+(?:p\d+)?|mmcblk\d+(?:p\d+)?|(?:loop|nbd)\d+(?:p\d+)?"
    r"|mapper/(?:loop|nbd)\d+p\d+|dm-\d+|root|disk/by-path/.+|disk/by-id/(?!dm-uuid-|md-|lvm-).+)"
)
"""by-id/dm-uuid-..., md-uuid-... and lvm-pv-uuid-... come from the disk's own content."""
LETTERED = re.compile(r"/dev/(?:[hsv]d|xvd)([a-z]+)(\d*)")
NUMBERED = re.compile(r"/dev/(?:mapper/)?(?:nvme(\d+)n1|mmcblk(\d+)|loop\d+|nbd\d+)(?:p(\d+))?")
BY_HARDWARE = re.compile(r"/dev/disk/by-(?:path|id)/(.+?)(?:-part(\d+))?")
DM_NAME = "/dev/disk/by-id/dm-name-"
ARRAY = re.compile(r"/dev/(?:md/|md(?=\d+$))(.+)")
OCTAL = re.compile(r"\\([0-7]{3})")
UDEV_HEX = re.compile(r"\\x([0-9a-fA-F]{2})")
MEMBERS = ("LVM2_member", "linux_raid_member")
"""Parts of other volumes, to which no fstab and no command line can refer."""

TAGS: tuple[tuple[str, str, Callable[[Volume], str | None]], ...] = (
    ("UUID", "by-uuid", lambda volume: volume.uuid),
    ("PARTUUID", "by-partuuid", lambda volume: volume.partuuid),
    ("LABEL", "by-label", lambda volume: volume.label),
    ("PARTLABEL", "by-partlabel", lambda volume: volume.partlabel),
)
"""In the order of preference for a stable name."""


class Devices:
    """The volumes of one guest, by every name that it may use for them."""

    def __init__(self, layout: Layout, root: Volume | None = None, crypttab: str = "") -> None:
        """`crypttab` is the guest's: it names the opened LUKS containers."""
        self._layout, self._volumes, self._root = layout, layout.volumes, root
        self._decrypted: dict[str, Volume] = {}
        self._decrypted |= self._decrypted_names(crypttab)

    @property
    def volumes(self) -> tuple[Volume, ...]:
        return self._volumes

    @staticmethod
    def is_unstable(spec: str) -> bool:
        """True for a name that depends on the order, the bus or the make of the disks."""
        return UNSTABLE.fullmatch(spec) is not None

    def find(self, spec: str) -> Volume | None:
        """The volume of a spec (`/dev/sda1`, `UUID=...`, `/dev/mapper/vg-lv`), or None if it cannot be determined.

        `spec` may contain fstab's octal escapes and quotes.
        """
        spec = OCTAL.sub(lambda match: chr(int(match[1], 8)), spec).strip("\"'")
        tag, equals, value = spec.partition("=")
        for name, link, attribute in TAGS:
            if equals and tag == name:
                return self._only(name, attribute, value.strip("\"'"))
            if spec.startswith(f"/dev/disk/{link}/"):
                text = UDEV_HEX.sub(lambda match: chr(int(match[1], 16)), spec.rpartition("/")[2])
                return self._only(name, attribute, text)
        if spec == "/dev/root":
            return self._root
        address = self._address(spec)
        return self._on_disk(*address) if address else self._by_dm_name(spec) or self._by_array(spec)

    def _only(self, tag: str, attribute: Callable[[Volume], str | None], value: str) -> Volume | None:
        """The only volume with that tag; None if two volumes have it."""
        fold = str.lower if tag in ("UUID", "PARTUUID") else str
        found = [volume for volume in self._volumes if fold(attribute(volume) or "") == fold(value)]
        return found[0] if len(found) == 1 and value else None

    def whole_disk(self, spec: str) -> int | None:
        """The disk, from 0, to which a name without a partition refers."""
        address = self._address(spec)
        return address[0] if address and not address[1] and address[0] < len(self._layout.tables) else None

    def _address(self, spec: str) -> tuple[int, str] | None:
        """Disk, from 0, and partition number, if any, of a name that the kernel or udev derives from hardware.

        by-path and by-id name a controller or serial number that is gone: they are resolved only with a single disk.
        """
        if match := LETTERED.fullmatch(spec):
            return _letters_to_index(match[1]), match[2]
        if match := NUMBERED.fullmatch(spec):
            return int(match[1] or match[2] or 0), match[3] or ""
        match = BY_HARDWARE.fullmatch(spec)
        if match is None or len(self._layout.tables) != 1 or match[1].startswith(("dm-", "md-", "lvm-")):
            return None
        return 0, match[2] or ""

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

    def _on_disk(self, disk: int, number: str) -> Volume | None:
        for volume in self._layout.on_disk(disk):
            if volume.kind == ("partition" if number else "disk") and (not number or volume.number == int(number)):
                return volume
        return None

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
            if name not in wanted or not value or self._only(name, attribute, value) != volume:
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


def _letters_to_index(letters: str) -> int:
    """a is 0, z is 25, aa is 26."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1
