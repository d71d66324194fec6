"""Disks and their contents: layouts, source disks, images. Sizes and offsets are bytes unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
)

from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.frozen import Frozen

Table = Literal["gpt", "dos", "none"]
BootCode = Literal["loader", "code", "none"]
"""The program in the first sector of a disk: a boot loader, another or unknown program, none."""
ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")
"""Types of an EFI system partition."""
COMPACT: Mapping[str, bool] = {"compact": True}
"""The context of a serialization for the record; see `results.recorded`."""


class NamedBy(Frozen):
    """The file that names a disk, and its owner when it was read: they choose what is opened."""

    path: Path
    uid: int


class LocalFile(Frozen):
    """A disk in a file of this host."""

    path: Path
    named_by: NamedBy | None = None
    """None: the migration itself."""

    def __str__(self) -> str:
        """For messages and reports."""
        return str(self.path)


class UnpackedFile(Frozen):
    """A disk that was unpacked from another file into the working folder."""

    path: Path
    origin: str
    """Where it was packed, for messages and reports."""

    def __str__(self) -> str:
        return self.origin


class ArchiveMember(Frozen):
    """A disk that is stored as it is inside another file, such as a member of a plain tar archive."""

    archive: Path
    member: str
    """Its name in the archive."""
    offset: int = Field(ge=0)
    """Of its first byte in the archive."""
    length: int = Field(ge=0)

    def __str__(self) -> str:
        return f"{self.archive}/{self.member}"


class EmptyDisk(Frozen):
    """A disk of zeros, which the description names without a file."""

    number: int
    """Among the disks of the machine, counted from 1: two empty disks are two disks."""
    size: int = Field(gt=0)

    def __str__(self) -> str:
        return f"empty disk {self.number}"


FileRef: TypeAlias = LocalFile | ArchiveMember | UnpackedFile
"""The location of stored bytes."""
DiskRef: TypeAlias = FileRef | EmptyDisk
"""The location of a disk. `disk/sources/location.py` opens it. Remote disks will be a further kind."""


class Segment(Frozen):
    """A byte range of one disk. `disk` is the index among the machine's disks."""

    disk: int = Field(default=0, ge=0)
    offset: int = Field(ge=0)
    length: int = Field(gt=0)


Cipher = Literal["aes-xts-plain64", "aes-cbc-essiv:sha256"]
"""The past and present defaults of LUKS."""


SectorSize = Literal[512, 1024, 2048, 4096]


class Crypt(Frozen):
    """The encryption of a stretch, in dm-crypt's terms. The key itself is never part of a layout."""

    container: str
    """UUID of the LUKS container, whose header has the key."""
    cipher: Cipher
    sector: SectorSize = 512
    """Bytes of one encrypted unit."""
    iv: int = Field(default=0, ge=0)
    """The initialization vector's number for the first 512 bytes of the stretch."""


class Stretch(Frozen):
    """A run of a volume's bytes: one byte range, several in turn (`striped`), or several copies (`mirror`)."""

    kind: Literal["linear", "striped", "mirror"] = "linear"
    legs: tuple[Segment, ...] = Field(min_length=1)
    """Of equal length."""
    chunk: int = Field(default=0, ge=0)
    """Bytes on one leg before the next leg's turn; 0 unless striped."""
    crypt: Crypt | None = None
    """Of the joined legs."""

    @property
    def length(self) -> int:
        return self.legs[0].length * (len(self.legs) if self.kind == "striped" else 1)


class Volume(Frozen):
    """A whole disk, a partition, or a volume inside them: a logical volume, md array or opened LUKS container.

    It contains a file system, swap or a container. `stretches` in order are its content, at any depth of nesting.
    They are empty if it cannot be addressed (a thin LV, a degraded array, a container without its key); `obstacle` then
    gives the reason.
    """

    kind: Literal["disk", "partition", "lv", "md", "luks"]
    name: str
    """`partition 2`, `vg0/root`, `whole disk`, `disk 2, partition 1`: for messages."""
    disk: int = 0
    """The disk of a partition, or on which any other volume begins."""
    number: int | None = None
    vg: str | None = None
    lv: str | None = None
    array: str | None = None
    """Name of an md array, without the host's: `0`, `boot`."""
    stretches: tuple[Stretch, ...] = ()
    content: str = "unknown"
    """blkid's name: ext4, xfs, btrfs, vfat, swap, ntfs, LVM2_member, linux_raid_member, crypto_LUKS..."""
    uuid: str | None = None
    label: str | None = None
    partuuid: str | None = None
    partlabel: str | None = None
    parttype: str | None = None
    """GPT type GUID in lower case, or the MBR type as two hex digits."""
    obstacle: str | None = None
    incomplete: bool = False
    """True for a logical volume with a part on a disk that is not among the machine's disks."""
    efi_loader: bool = False
    """True for an EFI system partition with a boot loader."""
    mounted_at: str | None = None
    """The directory where an ext file system was mounted last, from its superblock."""
    multi_device: bool = False
    """True for a btrfs that spans several devices, and an ext4 whose journal is on another one."""

    @property
    def is_esp(self) -> bool:
        """By its partition type; it may be empty or unreadable."""
        return self.parttype in ESP_TYPES

    @property
    def length(self) -> int:
        return sum(stretch.length for stretch in self.stretches)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Every byte range that belongs to it."""
        return tuple(leg for stretch in self.stretches for leg in stretch.legs)


class Layout(Frozen):
    """Contents of a machine's disks, read from their own bytes."""

    tables: tuple[Table, ...]
    """The partition table of each disk."""
    volumes: tuple[Volume, ...] = ()
    boots: tuple[str, ...] = ()
    """Signs in the disks' first sectors that a firmware starts a system there: `disk 2 starts GRUB`."""
    boot_code: tuple[BootCode, ...] = ()
    """Of each disk; empty if unknown."""

    def on_disk(self, disk: int) -> tuple[Volume, ...]:
        """The partitions of one disk, or the disk itself if it has none."""
        outer = ("disk", "partition")
        return tuple(volume for volume in self.volumes if volume.disk == disk and volume.kind in outer)

    def written_by_scatter(self, disk: int) -> str | None:
        """Why a writer could meet ENOSPC anywhere on this disk (`sparse: auto` then reserves it all)."""
        names = {"LVM2_member": "LVM", "linux_raid_member": "md", "crypto_LUKS": "LUKS"}
        for volume in self.on_disk(disk):
            if volume.content in names:
                return names[volume.content]
            if volume.multi_device:
                return "multi-device btrfs"
        return None


class MemberWindow(Frozen):
    """The part of a file that is read like a file of its own: a member of an archive."""

    member: str
    """Its name in the archive."""
    first: int = Field(ge=0)
    """The byte of the file at which it begins."""
    length: int = Field(ge=0)


class FileIdentity(Frozen):
    """Facts that must not change while a source is read."""

    path: Path
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    window: MemberWindow | None = None
    """The part that is read; None: all of it."""

    @property
    def read_bytes(self) -> int:
        """The size of the part that is read."""
        return self.size if self.window is None else self.window.length

    def overlaps(self, other: FileIdentity) -> bool:
        """Whether both read a byte of the same file."""
        if (self.device, self.inode) != (other.device, other.inode):
            return False
        if self.window is None or other.window is None:
            return True
        first = max(self.window.first, other.window.first)
        return first < min(self.window.first + self.window.length, other.window.first + other.window.length)


class StoredFile(Frozen):
    """A file that was found at its location."""

    at: FileRef
    identity: FileIdentity

    def __str__(self) -> str:
        return str(self.at)


DigestAlgorithm: TypeAlias = Literal["sha1", "sha256", "sha384", "sha512"]


class Checksum(Frozen):
    """What a manifest, or the directory of a ZIP archive, says of one file."""

    of: StoredFile
    algorithm: DigestAlgorithm | Literal["crc32"]
    digest: str
    """In lower-case hexadecimal digits."""
    manifest: str
    """The name of the file that says so, for messages."""


SourceFormat = Literal["vmdk", "raw", "qcow2", "vdi", "vhd", "vhdx"]


class SourceDisk(Frozen):
    at: DiskRef
    format: SourceFormat = "vmdk"
    subformat: str
    """The variant of the format: the createType of a VMDK, such as monolithicSparse."""
    serial: str | None = None
    """The identifier that VMware shows to the guest, as 32 hex digits: `ddb.uuid` of a VMDK's descriptor."""
    virtual_size: int
    data_bytes: int
    """Bytes of the guest's disk that the source stores: the data to copy, and the approximate size of an image with
    holes."""
    files: tuple[FileIdentity, ...]
    """All files of the disk, the named one first: for a VMDK, the descriptor and every extent."""
    preallocate: bool = False
    preallocate_reason: str = ""
    concerns: tuple[Concern, ...] = ()
    """About how it is read."""

    @field_serializer("files", mode="wrap")
    def _named_beside(
        self, files: tuple[FileIdentity, ...], handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> Any:
        """On record, a file in the directory of the first has its bare name: a thousand extents may share it."""
        shown = handler(files)
        if info.context == COMPACT:
            for one in shown:
                if one["window"] is None:
                    del one["window"]
            for file, one in zip(files[1:], shown[1:], strict=True):
                if file.path.parent == files[0].path.parent:
                    one["path"] = file.path.name
        return shown

    @field_validator("files", mode="before")
    @classmethod
    def _found_beside(cls, files: Any) -> Any:
        match files:
            case [{"path": str(first)}, *others] if isinstance(files, list):
                return [files[0], *(_beside(Path(first).parent, file) for file in others)]
        return files


def _beside(directory: Path, file: Any) -> Any:
    """A file of the record; a bare name means a file in `directory`."""
    if isinstance(file, dict) and isinstance(name := file.get("path"), str) and "/" not in name:
        return {**file, "path": str(directory / name)}
    return file


class DiskImage(Frozen):
    """One converted disk."""

    path: Path
    virtual_size: int
    file_bytes: int
    """Bytes that it occupies."""


class Image(Frozen):
    """The machine's converted disks in the working folder, in the source's order."""

    disks: tuple[DiskImage, ...]
    format: Literal["qcow2", "raw"]
    layout: Layout
    evidence: tuple[str, ...] = ()
    """The proofs of its content that needed the source."""

    @property
    def file_bytes(self) -> int:
        return sum(disk.file_bytes for disk in self.disks)
