"""What becomes of each key and command of hyper2kvm: the data for `spec` and for docs/howto/from-hyper2kvm.md.

A key that `Migration` has as well is honoured and has no row here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.model.asked import Migration, SourceKey
from hyper2kvmd.model.concerns import ConcernLevel

Decision = Literal["honoured", "no effect", "refused"]
TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")
SOURCE = "source"
"""Stands for the source key that fits the suffix of the file."""


@dataclass(frozen=True)
class Row:
    """One decision, for all keys that share it."""

    keys: tuple[str, ...]
    decision: Decision
    text: str
    """Honoured: what the other value of a switch means. No effect: the reason, as a clause. Refused: the remedy."""
    same_as: str = ""
    """The key of this program that has the same meaning, or SOURCE."""
    stands_in_for: str = ""
    """The key of this program that has the same meaning, unless that is given as well."""
    when_true: tuple[str, str] | None = None
    """The key of this program that `true` sets, and its value."""
    when_false: tuple[str, str] | None = None
    harmless: tuple[str, ...] = FALSE
    """Values of a refused key that ask for what happens anyway, in lower case."""
    level: ConcernLevel = "information"


def _same(key: str, *names: str) -> Row:
    return Row(names, "honoured", "", same_as=key)


def _unused(reason: str, *names: str, level: ConcernLevel = "information") -> Row:
    return Row(names, "no effect", reason, level=level)


def _refused(remedy: str, *names: str, harmless: tuple[str, ...] = FALSE) -> Row:
    return Row(names, "refused", remedy, harmless=harmless)


NO_CHANGE = "they ask for what happens anyway"
"""The reason for the harmless values of refused keys."""

HONOURED = (
    _same("cmd", "command"),
    _same(SOURCE, "input", "source"),
    _same("vmdk", "disk", "raw", "img", "raw_src", "raw_path", "vhd"),
    _same("libvirt_xml", "xml_path"),
    _same("vm_name", "name", "libvirt_vm_name"),
    Row(("output",), "honoured", "`output_dir` and `to_output` decide", same_as="output_dir"),
    _same("conversion_dir", "workdir"),
    _same("memory", "libvirt_memory_mb"),
    _same("vcpus", "libvirt_vcpus"),
    _same("virtio_win", "virtio_drivers_dir"),
    Row(
        ("win_driver_iso", "virtio_win_iso", "driver_iso"),
        "honoured",
        "`virtio_win` decides",
        stands_in_for="virtio_win",
    ),
    _same("libvirt_import", "virsh_define"),
    _same("regen_initramfs", "initramfs_regen_enable"),
    Row(
        ("libvirt_test", "qemu_test"),
        "honoured",
        "the new machine is booted only with `verify: boot`",
        when_true=("verify", "boot"),
    ),
    Row(("no_regen_initramfs",), "honoured", "`regen_initramfs` decides", when_true=("regen_initramfs", "false")),
    Row(("fstab_fixes_enable",), "honoured", "`fstab_mode` decides", when_false=("fstab_mode", "noop")),
    Row(("grub_fixes_enable",), "honoured", "`no_grub` decides", when_false=("no_grub", "true")),
)
UNUSED = (
    _unused("chains of snapshots are always flattened, without an intermediate image", "flatten", "flatten_format"),
    _unused("the report is always written beside the image, as `.report.md` and `.report.json`", "report"),
    _unused("every step is logged, and `h2kvmctl --debug` adds the external commands", "verbose", "verbosity", "debug"),
    _unused("the log goes to the terminal, or to the journal (`h2kvmctl logs ID`)", "log_file"),
    _unused("the source is never written to, and the report has the diff of each change", "no_backup"),
    _unused("the boot proof has its own time limit", "timeout", "boot_timeout"),
    _unused("the boot proof opens no window, and the new machine has a serial console too", "headless"),
    _unused("the machine of the XML is migrated at once, without a manifest", "compute_checksums", "manifest_filename"),
    _unused("the XML of the libvirt domain is always written", "emit_domain_xml", "libvirt_xml_generate"),
    _unused("the daemon always continues an interrupted job", "enable_recovery", "recovery_checkpoint_dir"),
    _unused(
        "a conversion uses all cores, and max_concurrent_jobs of the daemon limits the jobs",
        *("parallel_processing", "workers", "batch_parallel", "v2v_parallel", "v2v_concurrency"),
        *("export_parallel", "export_concurrency"),
    ),
    _unused("the guest is recognised by its disks", "guest_os"),
    _unused(
        "the display of the new machine is the same for all guests; `virsh edit` can change it",
        *("graphics", "graphics_listen", "video", "usb_tablet"),
    ),
    _unused("the clock is set as the guest reads it", "clock", "win_localtime_clock"),
    _unused("libvirt chooses the firmware of the host", "ovmf_code"),
    _unused("the devices are those that the guest can drive", "disk_dev", "disk_cache", "win_stage", "win_hyperv"),
    _unused(
        "the initramfs gets virtio and all it needs from the modules of the guest",
        *("initramfs_add_drivers", "initramfs_modules", "initramfs_regen_force"),
    ),
    _unused("mount options are left as they are", "fstab_optimize_options"),
    _unused("`fstab_mode` decides", "stabilizeall"),
    _unused(
        "conversion and repair need no other program",
        *("use_v2v", "post_v2v", "use_export", "post_export"),
    ),
    _unused("`h2kvmctl plan` lists the volumes", "log_virt_filesystems"),
    _unused(
        "no intermediate image is written",
        *("ova_convert_to_qcow2", "ova_qcow2_dir", "ova_convert_compress", "ova_convert_compress_level"),
        *("convert_payload_to_qcow2", "payload_qcow2_dir"),
    ),
    _unused(
        "limits on archives are fixed, and members that are no files are never read",
        *("safe_extract", "skip_special", "max_members", "max_total_bytes", "extract_nested_tar"),
    ),
    _unused("`luks_keyfile` alone opens LUKS volumes", "luks_enable", "luks_mapper_prefix"),
    _unused("hyper2kvm ignores it too", "fix", "test"),
    _unused(
        "`virtio_win` decides: Windows gets the drivers for disks, network cards, balloon and serial ports from there",
        *("windows_virtio", "enable_virtio_gpu", "enable_virtio_input", "enable_virtio_fs", "enable_virtio_serial"),
        *("enable_virtio_rng", "enable_virtio_balloon", "virtio_config_path", "virtio_config_json"),
        level="warning",
    ),
)
_VIRTIO = ("virtio", *FALSE)
REFUSED = (
    _refused(
        "Remove the keys below it: licences and domain membership of Windows are left as they are",
        "windows",
        harmless=(*TRUE, *FALSE),
    ),
    _refused("Write `libvirt_import: true`, which defines the domain and keeps it", "keep_domain"),
    _refused(
        "Remove the key: the new machine gets virtio devices if the guest can drive them",
        *("disk_bus", "libvirt_disk_bus", "net_model"),
        harmless=_VIRTIO,
    ),
    _refused("Remove the key: NVRAM is created from the firmware of the host", "nvram_vars", "ovmf_vars_template"),
    _refused("Remove the key, and attach the ISO with `virsh edit`", "cloudinit_iso", "cloudinit_seed_iso"),
    _refused("Remove the key: unstable names become UUIDs", "fstab_prefer_partuuid"),
    _refused(
        "Remove the key: names and addresses of network cards are always kept",
        "network_fixes_enable",
        harmless=TRUE,
    ),
    _refused(
        "Remove the key: the other machines of a batch are always migrated",
        "batch_continue_on_error",
        harmless=TRUE,
    ),
    _refused(
        "Remove the key, write the passphrase to a file, and set luks_keyfile to its path",
        *("luks_passphrase", "luks_passphrase_env"),
    ),
    _refused(
        "Remove the key: the guest is repaired, not configured. Use cloud-init or your configuration management",
        *("cloud_init_config", "cloud_init_enable", "firstboot_scripts", "network_config_inject"),
        *("user_config_inject", "service_config_inject", "hostname_config_inject"),
    ),
    _refused(
        "Remove the key, and write the addresses in win_net, as in `man hyper2kvm-migration`",
        *("win_net_override", "win_net_json"),
    ),
    _refused("Write the machines below `vms:`, or drop one file for each", "manifest", "batch_manifest"),
    _refused("Write `target: kubevirt`, and apply the YAML that is written", "deploy_k8s"),
    _refused(
        "Remove the key: this program reads disks that are files. Export the machine to an OVA first",
        *("vcenter", "vc_user", "vc_password", "vc_password_env", "vc_insecure", "vc_port", "vs_action", "action"),
        *("dc_name", "datastore", "esxi_host", "vsphere", "host", "vs_vm", "vs_vms", "vs_datacenter", "vs_transport"),
        *("export_mode", "azure_resource_group", "azure_vm_names"),
    ),
    _refused(
        "Remove the key: guests are repaired offline, never over SSH",
        *("user", "port", "identity", "ssh_opt", "sudo", "ssh_user", "ssh_host", "ssh_port", "ssh_key"),
        *("identity_file", "password", "remote", "fetch_dir", "fetch_all"),
    ),
    _refused("Unpack the archive, and name its disk: `vmdk: disk.raw`", "ami", harmless=()),
    _refused(
        "Remove the key, and install the service hyper2kvmd, which watches its spool directory",
        *("daemon", "watch_dir", "workflow_mode", "workflow_dir", "manifest_workflow_mode", "manifest_workflow_dir"),
        *("systemd_output", "max_concurrent_jobs"),
    ),
)
ROWS = (*HONOURED, *UNUSED, *REFUSED)
BY_KEY: Mapping[str, Row] = {key: row for row in ROWS for key in row.keys}

COMMANDS: Mapping[str, SourceKey | None] = {
    "local": None,
    "migrate": None,
    "ova": "ova",
    "ovf": "ovf",
    "vmx": "vmx",
    "libvirt-xml": "libvirt_xml",
    "vhd": "vmdk",
    "raw": "vmdk",
}
"""The commands that are accepted, and the source key that each needs; None: any."""
_EXPORT = "Export the machine to an OVA first, then write `cmd: ova`"
OTHER_COMMANDS: Mapping[str, str] = {
    "ami": "Unpack the archive, then write `cmd: raw` and `raw: disk.raw`",
    "vsphere": _EXPORT,
    "azure": "Download the disk, then write `cmd: vhd` and `vhd: disk.vhd`",
    "fetch-and-fix": _EXPORT,
    "live-fix": "Shut the machine down and export it, then write `cmd: local`: guests are repaired offline",
    "daemon": "Install the service hyper2kvmd, and drop the file into its spool directory",
    "generate-systemd": "Install the package: it has a unit for the service hyper2kvmd",
}
"""Commands of hyper2kvm that are refused, and what to do instead."""

# ---------------------------------------------------------------- as a page of the documentation

HEADER = """# From hyper2kvm

Files written for hyper2kvm work here. Check one first; nothing is read or written but the file:

```
h2kvmctl check web01.yaml
```

Each key of hyper2kvm falls into one of three classes:

- **Honoured**: it has its meaning.
- **No effect**: the migration gives the same result without it, or says what is missing. `check`, `h2kvmctl show`, the
  log and the report note it.
- **Refused**: without it, the result would differ from what the file asks for. The error tells what to write instead.

A key with the value `null` is not given. Keys that are in neither program are errors.

Run the file with `h2kvmctl --config web01.yaml`, or drop it into the spool directory of the daemon. Differences:

- Paths in the spool are absolute, or begin with `~/`: the home directory of the submitter. With `h2kvmctl`, relative
  paths are resolved from the current directory, and `~/` is the home directory of the person who runs it.
- Images, report and domain XML of a machine are in one directory: `output_dir`, or the directory in `to_output`.
- A list `vms:`, and several documents in one file, are a batch: one migration for each machine. A machine without
  `vm_name` is named after its `to_output` or its source. Names and images have to differ.
- The daemon takes all machines of a file or none. A one-shot run migrates one after the other, and continues after a
  failure.
- `--config` can be repeated: keys of later files override those of earlier ones. A machine without
  `vm_name` is named after the file that names its source.
- A source is never changed. Existing files are never overwritten, except with `overwrite: true` the results of an
  earlier run.

This page is generated from `hyper2kvmd/hyper2kvm_keys.py`, by which the program decides.
"""


def markdown() -> str:
    """The text of `docs/howto/from-hyper2kvm.md`."""
    lines = [HEADER, "## Commands", "", "| `cmd` or `command` | decision |", "|---|---|"]
    for word, key in COMMANDS.items():
        lines += [f"| `{word}` | {f'honoured, with the key `{key}`' if key else 'honoured, with any source'} |"]
    lines += [f"| `{word}` | refused: {remedy} |" for word, remedy in OTHER_COMMANDS.items()]
    lines += ["", "## Honoured", "", "| key | meaning here |", "|---|---|"]
    lines += [f"| {_named(row)} | {_meaning(row)} |" for row in HONOURED]
    known = sorted(set(Migration.model_fields) - {"cmd"})
    lines += [f"| {', '.join(f'`{key}`' for key in known)} | `man hyper2kvm-migration` |"]
    lines += ["", "## No effect", "", "| key | reason |", "|---|---|"]
    lines += [f"| {_named(row)} | {row.text} |" for row in UNUSED]
    lines += ["", "## Refused", "", "| key | what to do | no effect as |", "|---|---|---|"]
    lines += [
        f"| {_named(row)} | {row.text} | {', '.join(f'`{value}`' for value in row.harmless)} |" for row in REFUSED
    ]
    return "\n".join([*lines, ""])


def _named(row: Row) -> str:
    return ", ".join(f"`{key}`" for key in row.keys)


def _meaning(row: Row) -> str:
    if row.same_as == SOURCE:
        return "`ova`, `ovf` or `vmx` for a file with that suffix, else `vmdk`"
    if row.same_as:
        return f"`{row.same_as}`"
    if row.stands_in_for:
        return f"`{row.stands_in_for}`. No effect if that is given: {row.text}"
    for word, switched in (("true", row.when_true), ("false", row.when_false)):
        if switched is not None:
            return f"`{word}`: `{switched[0]}: {switched[1]}`. Otherwise no effect: {row.text}"
    return row.text


if __name__ == "__main__":
    sys.stdout.write(markdown())
