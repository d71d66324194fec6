"""The frozen types that flow from the YAML to the libvirt domain; no I/O here.

Read this first: a migration is parsed once into a `Migration`, and every stage takes the types before it and
returns the next one. All sizes and offsets are bytes unless a name says otherwise.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

DISKS_MAX = 26
"""Disks of one machine: vda to vdz."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- what is asked for


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | Path) else value


class Migration(Frozen):
    """One migration YAML, parsed. `None` means that the key was not given."""

    cmd: Literal["local"] = "local"
    vmdk: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple), Field(min_length=1, max_length=DISKS_MAX)]
    """The machine's disks, whatever their format (the key keeps its old name), that which it boots from first."""
    vm_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    output_dir: Path | None = None
    to_output: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    out_format: Literal["qcow2", "raw"] = "qcow2"
    compress: bool = False
    conversion_dir: Path | None = None
    sparse: Literal["auto", "always", "never"] = "auto"
    fstab_mode: Literal["stabilize-all", "bypath-only", "noop"] = "stabilize-all"
    regen_initramfs: bool = True
    no_grub: bool = False
    remove_vmware_tools: bool = False
    libvirt_import: bool = False
    libvirt_uri: str = "qemu:///system"
    libvirt_network: str = "default"
    memory: int = Field(default=2048, ge=64, le=16 * 1024 * 1024, description="MiB")
    vcpus: int = Field(default=2, ge=1, le=1024)
    uefi: bool | None = None
    machine: str | None = Field(default=None, pattern=r"^[a-z0-9.-]{1,40}$")
    checksum: bool = False
    verify: Literal["check", "content", "boot"] = "check"
    priority: int = Field(default=5, ge=0, le=9)
    dry_run: bool = False
    print_fstab: bool = False

    luks_keyfile: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)] = ()
    """Files whose content, as it is, may open the guest's LUKS volumes; each is tried on each."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """File names of the images: `web01.qcow2`, `web01-disk2.qcow2` and so on."""
        first = PurePath(self.to_output or f"{self.vm_name}.{self.out_format}")
        more = (f"{first.stem}-disk{number}{first.suffix}" for number in range(2, len(self.vmdk) + 1))
        return (first.name, *more)


# ---------------------------------------------------------------- jobs


class State(StrEnum):
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def active(self) -> bool:
        return self in (State.QUEUED, State.HELD, State.RUNNING)


class Stage(StrEnum):
    PLAN = "plan"
    CONVERT = "convert"
    REPAIR = "repair"
    VERIFY = "verify"
    PUBLISH = "publish"
    REGISTER = "register"


class Problem(Frozen):
    """A failure as data: what `errors.Failure` carries, for events, rows and `--json`."""

    code: str
    message: str
    hint: str
    kind: Literal["retry", "operator", "permanent"]
    key: str | None = None
    line: int | None = None
    column: int | None = None


class Job(Frozen):
    """A row of the queue. `attempt` fences claims: it grows by one with each and every later write names it."""

    id: int
    state: State
    vm_name: str
    priority: int
    attempt: int = 0
    migration: Migration | None = None
    content_key: str
    spool_name: str | None = None
    submitter: str = ""
    stage: Stage | None = None
    progress: float = Field(default=0.0, ge=0.0, le=1.0)
    note: str = ""
    problems: tuple[Problem, ...] = ()
    reserved_bytes: int = 0
    created: datetime
    not_before: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None


class JobEvent(Frozen):
    """One transition of a job, as it was recorded with the change itself."""

    id: int
    job_id: int
    at: datetime
    attempt: int
    kind: str
    """`submitted`, `claimed`, `stage-started`, `stage-finished`, `requeued`, `succeeded` and the like."""
    message: str = ""


class Counts(Frozen):
    """Jobs by state."""

    queued: int = 0
    held: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0


# ---------------------------------------------------------------- disks


Table = Literal["gpt", "dos", "none"]
Firmware = Literal["bios", "uefi"]


class Segment(Frozen):
    """A byte range of one disk, which is told by its place among the machine's disks."""

    disk: int = Field(default=0, ge=0)
    offset: int = Field(ge=0)
    length: int = Field(gt=0)


Cipher = Literal["aes-xts-plain64", "aes-cbc-essiv:sha256"]
"""Those that LUKS has had as its defaults."""
SectorSize = Literal[512, 1024, 2048, 4096]


class Crypt(Frozen):
    """How a stretch is encrypted, in dm-crypt's terms. The key itself is never part of a layout."""

    container: str
    """UUID of the LUKS container, whose header has the key."""
    cipher: Cipher
    sector: SectorSize = 512
    """Bytes that are encrypted as one."""
    iv: int = Field(default=0, ge=0)
    """What the initialization vector counts the stretch's first 512 bytes as."""


class Stretch(Frozen):
    """A run of a volume's bytes: one byte range, or several that hold it in turns (`striped`) or each (`mirror`)."""

    kind: Literal["linear", "striped", "mirror"] = "linear"
    legs: tuple[Segment, ...] = Field(min_length=1)
    """Of one length."""
    chunk: int = Field(default=0, ge=0)
    """Bytes on one leg before the next one's turn; 0 unless striped."""
    crypt: Crypt | None = None
    """Over whatever the legs make up."""

    @property
    def length(self) -> int:
        return self.legs[0].length * (len(self.legs) if self.kind == "striped" else 1)


class Volume(Frozen):
    """Something that holds a file system, swap or a container: a whole disk, a partition, or what lies in those:
    a logical volume, an md array, the inside of a LUKS container.

    `stretches` in order make up its content, however deep it is nested. It is empty for what cannot be addressed
    that way (a thin LV, a degraded array, a container without its key); `obstacle` then says why.
    """

    kind: Literal["disk", "partition", "lv", "md", "luks"]
    name: str
    """`partition 2`, `vg0/root`, `whole disk`, `disk 2, partition 1`: for messages."""
    disk: int = 0
    """Which disk a partition is on, or where anything else begins."""
    number: int | None = None
    vg: str | None = None
    lv: str | None = None
    array: str | None = None
    """Name of an md array, without the host's: `0`, `boot`."""
    stretches: tuple[Stretch, ...] = ()
    content: str = "unknown"
    """As blkid names it: ext4, xfs, btrfs, vfat, swap, ntfs, LVM2_member, linux_raid_member, crypto_LUKS..."""
    uuid: str | None = None
    label: str | None = None
    partuuid: str | None = None
    partlabel: str | None = None
    parttype: str | None = None
    """GPT type GUID in lower case, or the MBR type as two hex digits."""
    obstacle: str | None = None
    multi_device: bool = False
    """True for a btrfs that spans several devices, and an ext4 whose journal is on another one."""

    @property
    def length(self) -> int:
        return sum(stretch.length for stretch in self.stretches)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Every byte range that belongs to it."""
        return tuple(leg for stretch in self.stretches for leg in stretch.legs)


class Layout(Frozen):
    """What a machine's disks hold, read from their own bytes."""

    tables: tuple[Table, ...]
    """The partition table of each disk."""
    volumes: tuple[Volume, ...] = ()

    def on_disk(self, disk: int) -> tuple[Volume, ...]:
        """The partitions of one disk, or the disk itself where it has none."""
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


class FileIdentity(Frozen):
    """What must not change while a source is read."""

    path: Path
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


SourceFormat = Literal["vmdk", "raw", "qcow2", "vdi", "vhdx"]


class SourceDisk(Frozen):
    path: Path
    format: SourceFormat = "vmdk"
    subformat: str
    """Which kind of that format: the createType of a VMDK, such as monolithicSparse."""
    virtual_size: int
    data_bytes: int
    """Bytes of the guest's disk that the source stores: what there is to copy, and about what the image will occupy
    when holes are kept."""
    files: tuple[FileIdentity, ...]
    """All that the disk consists of: of a VMDK the descriptor and every extent."""
    preallocate: bool = False
    preallocate_reason: str = ""


class SourceNic(Frozen):
    """A network card of the source, as its .vmx has it."""

    mac: str | None
    """Six octets in lower case, with colons; None for a machine that never ran."""
    slot: int | None = None
    """VMware's PCI slot number: 192 for the card that a guest with predictable names calls ens192."""


class Source(Frozen):
    """What `plan` found and checked."""

    disks: tuple[SourceDisk, ...]
    layout: Layout
    nics: tuple[SourceNic, ...] = ()
    """Empty when no .vmx tells."""
    firmware: Firmware
    needed_bytes: int
    """To be free in the conversion directory's file system before the first byte."""
    publish_bytes: int = 0
    """To be free in the output directory's, when that is another one."""


class DiskImage(Frozen):
    """One converted disk."""

    path: Path
    virtual_size: int
    file_bytes: int
    """What it occupies."""


class Image(Frozen):
    """The machine's converted disks in the working folder, in the order of the source's."""

    disks: tuple[DiskImage, ...]
    format: Literal["qcow2", "raw"]
    layout: Layout
    evidence: tuple[str, ...] = ()
    """What was proven of its content while the source was at hand."""

    @property
    def file_bytes(self) -> int:
        return sum(disk.file_bytes for disk in self.disks)


# ---------------------------------------------------------------- the guest


class Change(Frozen):
    """One edit of a guest file, made by one fix."""

    fix: str
    path: str
    summary: str
    diff: str = ""
    """Unified diff for text; one line of facts for binary files."""


class Nic(Frozen):
    """A network card of the migrated machine."""

    name: str | None
    """What the guest will call its interface; None when nothing in the guest asks for a name."""
    mac: str


class Guest(Frozen):
    """What the disk holds, what was repaired and what could not be."""

    family: Literal["linux", "windows", "none"] = "linux"
    os_id: str = ""
    os_name: str = ""
    hostname: str = ""
    architecture: str = ""
    kernels: tuple[str, ...] = ()
    boot_loader: str = ""
    root: str = ""
    nics: tuple[Nic, ...] = ()
    """In the order of their places on the bus."""
    fstab_before: str = ""
    fstab_after: str = ""
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()


class Verdict(Frozen):
    """Positive evidence that the image is good; an empty tuple never happens."""

    level: Literal["check", "content", "boot"]
    evidence: tuple[str, ...]
    boot_seconds: float | None = None
    console_tail: tuple[str, ...] = ()


class PublishedDisk(Frozen):
    """One image file in the output directory."""

    path: Path
    file_bytes: int
    """What it occupies."""
    sha256: str | None = None


class Artifact(Frozen):
    """What was put in the output directory."""

    disks: tuple[PublishedDisk, ...]
    format: Literal["qcow2", "raw"]
    report_json: Path
    report_markdown: Path


class Domain(Frozen):
    """The libvirt side: the XML beside the image, and whether libvirt has it."""

    name: str
    xml: Path
    macs: tuple[str, ...]
    defined: bool
    uri: str | None = None


class Hardware(Frozen):
    """What the new machine consists of: the boot proof and every target render the same value."""

    firmware: Firmware
    machine: str = "q35"
    memory: int = 2048
    """MiB."""
    vcpus: int = 2
    macs: tuple[str, ...] = ("52:54:00:00:00:01",)
    """One network interface each, in this order."""
    disk_bus: Literal["virtio", "sata"] = "virtio"
    nic_model: Literal["virtio", "e1000e"] = "virtio"
    rtc: Literal["utc", "localtime"] = "utc"


# ---------------------------------------------------------------- daemon and worker


class Finished(Frozen):
    """What earlier attempts of the job completed; a stage whose product is here does not run again."""

    source: Source | None = None
    image: Image | None = None
    guest: Guest | None = None
    verdict: Verdict | None = None
    artifact: Artifact | None = None
    domain: Domain | None = None


class Limits(Frozen):
    """How much of the host one job may take."""

    threads: int = Field(default=0, ge=0, le=256)
    """Of the copy engine; 0: one for each core."""
    bandwidth_limit: int = Field(default=0, ge=0)
    """Bytes a second that the conversion may read; 0: no limit."""
    io_priority: Literal["normal", "idle"] = "normal"


HelperCall: TypeAlias = tuple[str, ...] | Path
"""How the root helper is called: the command that runs it, or the socket where systemd runs it."""


class Bounds(Frozen):
    """What a submitter's job may name, besides what the submitter's own rights allow.

    The default is for a run without a daemon: the kernel judges whoever runs it.
    """

    source_dirs: tuple[Path, ...] = ()
    """Sources lie below one of them. Empty: anywhere."""
    output_dirs: tuple[Path, ...] = ()
    """Output directories lie in or below one of them. Empty: anywhere."""
    shared_output_dir: Path | None = None
    """The configured output directory, where every submitter's results may go."""
    conversion_dirs: tuple[Path, ...] = ()
    """The conversion directories that a job may name. Empty: any."""
    private_dirs: tuple[Path, ...] = ()
    """The service's own directories: no output directory is one of them, lies in one or holds one."""
    libvirt_uris: tuple[str, ...] | None = None
    """The URIs that a job may name besides those of this host. None: any, for a job without a submitter."""


class Order(Frozen):
    """All that a worker is told: one job, where to work, and how to reach the helper. One JSON object on its stdin."""

    job_id: str
    attempt: int = 1
    migration: Migration
    submitter: str | None = None
    """Whose rights to the sources count; None: those of whoever runs this."""
    conversion_dir: Path
    output_dir: Path
    helper: HelperCall
    bounds: Bounds = Bounds()
    space_reserve: str = "5%"
    """Kept free on every file system written to: bytes, or a percentage of its size."""
    limits: Limits = Limits()
    finished: Finished = Finished()
