"""The frozen types that flow from the YAML to the libvirt domain; no I/O here.

Read this first: a migration is parsed once into a `Migration`, and every stage takes the types before it and
returns the next one. All sizes and offsets are bytes unless a name says otherwise.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- what is asked for


class Migration(Frozen):
    """One migration YAML, parsed. `None` means that the key was not given."""

    cmd: Literal["local"] = "local"
    vmdk: Path
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

    @property
    def output_name(self) -> str:
        return self.to_output or f"{self.vm_name}.{self.out_format}"


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


class Segment(Frozen):
    """A byte range of one disk."""

    offset: int = Field(ge=0)
    length: int = Field(gt=0)


class Volume(Frozen):
    """Something that holds a file system, swap or a container: a partition, a whole disk or a logical volume.

    `segments` in order make up its content. It is empty for what cannot be addressed as a linear list of byte
    ranges of this disk (a striped LV, say); `obstacle` then says why.
    """

    kind: Literal["disk", "partition", "lv"]
    name: str
    """`partition 2`, `vg0/root`, `whole disk`: for messages."""
    disk: int = 0
    number: int | None = None
    vg: str | None = None
    lv: str | None = None
    segments: tuple[Segment, ...] = ()
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
    """True for a btrfs that spans several devices."""

    @property
    def length(self) -> int:
        return sum(segment.length for segment in self.segments)


class Layout(Frozen):
    """What one disk holds, read from its own bytes."""

    table: Literal["gpt", "dos", "none"]
    volumes: tuple[Volume, ...] = ()

    @property
    def written_by_scatter(self) -> str | None:
        """Why a writer could meet ENOSPC anywhere on this disk (`sparse: auto` then reserves it all)."""
        names = {"LVM2_member": "LVM", "linux_raid_member": "md", "crypto_LUKS": "LUKS"}
        for volume in self.volumes:
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


class SourceDisk(Frozen):
    path: Path
    format: Literal["vmdk"] = "vmdk"
    subformat: str
    """VMDK createType, such as monolithicSparse."""
    virtual_size: int
    data_bytes: int
    """Bytes of the guest's disk that the source stores: what there is to copy, and about what the image will occupy
    when holes are kept."""
    files: tuple[FileIdentity, ...]
    """The descriptor and every extent."""
    layout: Layout


class SourceNic(Frozen):
    """A network card of the source, as its .vmx has it."""

    mac: str | None
    """Six octets in lower case, with colons; None for a machine that never ran."""
    slot: int | None = None
    """VMware's PCI slot number: 192 for the card that a guest with predictable names calls ens192."""


class Source(Frozen):
    """What `plan` found and checked."""

    disks: tuple[SourceDisk, ...]
    nics: tuple[SourceNic, ...] = ()
    """Empty when no .vmx tells."""
    firmware: Literal["bios", "uefi"]
    preallocate: bool
    preallocate_reason: str
    needed_bytes: int
    """To be free in the conversion directory's file system before the first byte."""
    publish_bytes: int = 0
    """To be free in the output directory's, when that is another one."""


class Image(Frozen):
    """A converted disk in the working folder."""

    path: Path
    format: Literal["qcow2", "raw"]
    virtual_size: int
    file_bytes: int
    layout: Layout
    evidence: tuple[str, ...] = ()
    """What was proven of its content while the source was at hand."""


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


class Artifact(Frozen):
    """What was put in the output directory."""

    image: Path
    format: Literal["qcow2", "raw"]
    file_bytes: int
    sha256: str | None = None
    report_json: Path
    report_markdown: Path


class Domain(Frozen):
    """The libvirt side: the XML beside the image, and whether libvirt has it."""

    name: str
    xml: Path
    macs: tuple[str, ...]
    defined: bool
    uri: str | None = None


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


class Order(Frozen):
    """All that a worker is told: one job, where to work, and how to reach the helper. One JSON object on its stdin."""

    job_id: str
    attempt: int = 1
    migration: Migration
    conversion_dir: Path
    output_dir: Path
    helper: tuple[str, ...]
    allowed_source_dirs: tuple[Path, ...] = ()
    """Empty: any source that the user may read."""
    allowed_output_dirs: tuple[Path, ...] = ()
    space_reserve: str = "5%"
    """Kept free on every file system written to: bytes, or a percentage of its size."""
    limits: Limits = Limits()
    finished: Finished = Finished()
