"""The content of a migration YAML."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePath
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.machine import MAX_MEMORY, MAX_VCPUS
from hyper2kvmd.model.sizes import Mebibytes

DISKS_MAX = 26
"""Disks of one machine: vda to vdz."""
KEYS_MAX = 16
NETWORKS_MAX = 64
NETWORK = r"^(bridge:[^\s/:]{1,15}|[^\s:]([^:\n]{0,253}[^\s:])?)$"
"""A bridge of the host, or the target's name of a network."""
NEW_SIZE = r"^(\+?[1-9][0-9]{0,10}[KMGT]|\+0)$"
DATASTORES_MAX = 64
DATASTORE = r"^[^/\x00-\x1f\x7f]{1,255}$"
"""The name of a datastore or the UUID of its volume: one part of a path."""
CARDS_MAX, NAME_SERVERS_MAX = 16, 16
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"^({_OCTET}\.){{3}}{_OCTET}$"
IPV4_WITH_LENGTH = rf"^({_OCTET}\.){{3}}{_OCTET}/([1-9]|[12][0-9]|3[0-2])$"
MAC = r"^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$"
SourceKey: TypeAlias = Literal["vmdk", "vmx", "ovf", "ova", "libvirt_xml"]
"""A key that names the source machine; a migration has exactly one. `machines/reader.py` has a reader for each."""
SOURCE_KEYS: tuple[SourceKey, ...] = get_args(SourceKey)
TargetName: TypeAlias = Literal["libvirt", "qemu", "proxmox", "kubevirt", "openstack"]
"""A platform for the new machine; `targets/choice.py` has a target for each."""


HOOKS_MAX = 8
HookName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""A name of a program that the administrator allows."""


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | Path) else value


class StaticAddress(Frozen):
    """The address that a Windows guest gets on one of its network cards."""

    mac: str = Field(pattern=MAC)
    address: str = Field(pattern=IPV4_WITH_LENGTH)
    gateway: str | None = Field(default=None, pattern=IPV4)
    dns: Annotated[
        tuple[Annotated[str, Field(pattern=IPV4)], ...],
        BeforeValidator(_as_tuple),
        Field(max_length=NAME_SERVERS_MAX),
    ] = ()


class Hooks(Frozen):
    """Programs of the host that a job starts, in this order."""

    before: Annotated[tuple[HookName, ...], BeforeValidator(_as_tuple), Field(max_length=HOOKS_MAX)] = ()
    """After the plan, before the conversion begins."""
    after: Annotated[tuple[HookName, ...], BeforeValidator(_as_tuple), Field(max_length=HOOKS_MAX)] = ()
    """After the last stage."""


Day: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
QUEUE_NAME = r"^[^/\x00-\x1f\x7f]{1,255}$"
"""The name of a batch or a VM."""
AFTER_MAX = 32


class StartWindow(Frozen):
    """The times at which a job may start. One that closes before it opens, by the clock, closes on the next day."""

    days: Annotated[tuple[Day, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = DAYS
    """Those on which it opens."""
    from_: str = Field(default="00:00", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", alias="from")
    to: str = Field(default="24:00", pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")
    timezone: str | None = Field(default=None, min_length=1, max_length=64)
    """As in the tz database; None is the time zone of the host."""


class Migration(Frozen):
    """One migration YAML, parsed. `None` means that the key was not given."""

    cmd: Literal["local", "migrate", "ova", "ovf", "vmx", "libvirt-xml", "vhd", "raw"] = "local"
    """As in hyper2kvm. It only has to agree with the source key: `hyper2kvm_keys.COMMANDS`."""
    vmdk: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple), Field(max_length=DISKS_MAX)] = ()
    """The machine's disks in any format (the key keeps its old name), boot disk first."""
    vmx: Path | None = None
    """The machine's VMware configuration file."""
    ovf: Path | None = None
    """The machine's OVF descriptor; its disks are beside it."""
    ova: Path | None = None
    """An OVF package in one file, also compressed, or unpacked in a directory."""
    libvirt_xml: Path | None = None
    """The XML of the machine's libvirt domain; its disks are files of this host."""
    ova_ca: Path | None = None
    """A file with the certificates of trusted signers, in PEM form: the package has to be signed."""
    configuration: str | None = Field(default=None, min_length=1, max_length=255)
    """The configuration of the OVF, by its identifier; None is its default one."""
    datastore_map: Mapping[Annotated[str, Field(pattern=DATASTORE)], Path] = Field(
        default={}, max_length=DATASTORES_MAX
    )
    """Directories with the files of datastores that a .vmx names in `/vmfs/volumes/NAME/...`."""
    snapshot: str | None = Field(default=None, min_length=1, max_length=255)
    """With `vmx`: the snapshot to migrate, by its name or uid; None is the machine's current state. With `vmdk`,
    `base`: migrate the disks as named, although the machine runs on snapshots of them."""
    vm_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    output_dir: Path | None = None
    to_output: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    overwrite: bool = False
    """Replace unchanged files of an earlier job for the same machine and submitter."""
    out_format: Literal["qcow2", "raw"] = "qcow2"
    compress: bool = False
    compress_level: int | None = Field(default=None, ge=1, le=9)
    """Of zstd, for `compress`. QEMU has its own for a QCOW2 source."""
    resize: Annotated[
        tuple[Annotated[str, Field(pattern=NEW_SIZE)], ...],
        BeforeValidator(_as_tuple),
        Field(max_length=DISKS_MAX),
    ] = ()
    """The new sizes of the first disks: `+10G` adds to the source's, `50G` replaces it, `+0` keeps it."""
    conversion_dir: Path | None = None
    sparse: Literal["auto", "always", "never"] = "auto"
    guest: Literal["auto", "none"] = "auto"
    """`none`: the disks hold data only, so that no system is looked for."""
    fstab_mode: Literal["stabilize-all", "bypath-only", "noop"] = "stabilize-all"
    regen_initramfs: bool = True
    no_grub: bool = False
    remove_vmware_tools: bool = False
    root: str | None = Field(default=None, min_length=1, max_length=256)
    """The guest's root file system, if the disks hold several: a name of it, as `UUID=...` or `partition 2`."""
    win_disk: Literal["auto", "virtio", "scsi", "sata"] = "auto"
    """The bus of a Windows guest's disks; `auto` is virtio if it gets the drivers, else SATA."""
    win_net: Literal["keep", "dhcp"] | tuple[StaticAddress, ...] = Field(default="keep", max_length=CARDS_MAX)
    """The addresses of a Windows guest's network cards."""
    win_tools: Literal["disable", "remove", "keep"] = "disable"
    """What becomes of VMware Tools in a Windows guest."""
    win_drivers: Literal["full", "minimal"] = "full"
    """How the drivers are recorded in a Windows guest: as installed packages, or only those of disks, as virt-v2v does.
    """
    win_agent: bool = False
    """Install QEMU's guest agent in a Windows guest, at its first boot."""
    win_first_boot: Literal["auto", "never"] = "auto"
    """Whether a Windows guest may get a service that runs once, at its first boot."""
    target: TargetName = "libvirt"
    libvirt_import: bool = False
    libvirt_uri: str = "qemu:///system"
    libvirt_network: str = "default"
    libvirt_pool: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$")
    """Upload the images as volumes of this storage pool."""
    network_map: Mapping[str, Annotated[str, Field(pattern=NETWORK)]] = Field(default={}, max_length=NETWORKS_MAX)
    """The target's network for each network of the source; `default` is for all others. See `hardware.network_for`."""
    memory: Mebibytes | None = Field(default=None, ge=64, le=MAX_MEMORY, description="MiB")
    """This and the next five override the source machine's values."""
    vcpus: int | None = Field(default=None, ge=1, le=MAX_VCPUS)
    uefi: bool | None = None
    secure_boot: bool | None = None
    tpm: bool | None = None
    machine: str | None = Field(default=None, pattern=r"^[a-z0-9.-]{1,40}$")
    checksum: bool = False
    verify: Literal["check", "content", "boot"] = "check"
    priority: int = Field(default=5, ge=0, le=9)
    batch: str | None = Field(default=None, pattern=QUEUE_NAME)
    after: Annotated[
        tuple[Annotated[str, Field(pattern=QUEUE_NAME)], ...], BeforeValidator(_as_tuple), Field(max_length=AFTER_MAX)
    ] = ()
    """Machines and batches that have to succeed before this job starts."""
    not_before: datetime | None = None
    window: StartWindow | None = None
    dry_run: bool = False
    print_fstab: bool = False

    hooks: Hooks = Hooks()
    luks_keyfile: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple), Field(max_length=KEYS_MAX)] = ()
    """Key files for the guest's LUKS volumes, used unchanged; each is tried on each."""
    virtio_win: Path | None = None
    """An ISO of virtio-win, or a folder with its files: the drivers for a Windows guest."""

    @property
    def source_key(self) -> SourceKey:
        """The key that names the source of this migration."""
        return next(key for key in SOURCE_KEYS if getattr(self, key))

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that the migration names as its source."""
        return self.vmdk or tuple(path for path in (self.vmx, self.ovf, self.ova, self.libvirt_xml) if path is not None)

    @property
    def known_disks(self) -> int:
        """How many disks the machine has at least, as far as the migration shows: a description may list more."""
        return max(1, len(self.vmdk))

    def output_names(self, disks: int) -> tuple[str, ...]:
        """File names of the images of that many disks: `web01.qcow2`, `web01-disk2.qcow2` and so on."""
        first = PurePath(self.to_output or f"{self.vm_name}.{self.out_format}")
        more = (f"{first.stem}-disk{number}{first.suffix}" for number in range(2, disks + 1))
        return (first.name, *more)
