"""Turns the untrusted text of a migration YAML into a frozen `Migration`, or into a list of errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from hyper2kvmd import yaml_source
from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.model.asked import SOURCE_KEYS, Migration, TargetName
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.yaml_binding import Bound, Rules, bind, in_order

VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LIBVIRT_URI = re.compile(
    r"test:///default|qemu(\+(ssh|libssh2?|tls|tcp|unix))?://"
    r"(([A-Za-z0-9_][A-Za-z0-9._-]*@)?([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)?/(system|session)"
)
"""No parameters: `command=` and `socket=` start programs and reach sockets with the daemon's rights. Neither user nor
host begins with a hyphen, which ssh would read as an option."""
AMBIGUOUS_NAME = re.compile(r"[0-9]+|([0-9A-Fa-f]-*){32}")
"""virsh looks for a domain by ID, then by UUID, then by name. libvirt accepts a UUID with hyphens anywhere between its
digits (virUUIDParse)."""
MAX_PROBLEMS = 20
"""Errors of one YAML that are listed. A YAML can have thousands, and every listed error goes on record."""
SUFFIXES = {"qcow2": (".qcow2", ".qcow", ".img"), "raw": (".raw", ".img")}
"""Suffixes of image names, for each format. None of them is used for other files."""

REMEDIES = {
    "cmd": "Write `cmd: local`, the only supported command. Export the disk to a file first, and name it in vmdk",
    "vm_name": "Use letters, digits, '.', '_' and '-', at most 63, and begin with a letter or a digit",
    "to_output": "Give a file name of letters, digits, '.', '_' and '-'. Set its directory in output_dir",
    "datastore_map.[key]": "Write the name of a datastore, or the UUID of its volume, as in the paths in the .vmx",
    "memory": "Write MiB as a plain number, 64 to 16777216, such as `memory: 4096`",
    "libvirt_pool": "Write a name as `virsh pool-list` shows it, of letters, digits, '.', '_' and '-'",
    "network_map": "Write lines of the form `VM Network: lan`, with a libvirt network or `bridge:br0` on the right",
    "resize": "Write the new size of the first disk, such as 50G, or what to add to it, such as +10G; or a list for "
    "several disks. The units are M, G and T",
    "machine": "Write a machine type as `virsh capabilities` lists it, such as q35",
}

NAME_THE_SOURCE = (
    "Add a line `vmdk: /path/to/disk.vmdk` (or the path of a raw, QCOW2, VDI, VHD or VHDX disk), "
    "or `vmdk: [first, second]` for a machine with several disks"
)
_FLATTENED = "Remove the key: snapshot chains are always flattened"
_REPORT = "Remove the key: a report is always written beside the image"
_BOOT = "Remove the key and write `verify: boot`, which boots the result on a throwaway overlay"
_VCENTER = "Remove the key: this service reads disks that are files. Export them from vCenter first"
_LIVE = "Remove the key: guests are repaired offline, never over SSH"
_UNTOUCHED = "Remove the key: the source is never written to and needs no backup"
_VERBOSITY = "Remove the key, and set log_level in the daemon's configuration"
_LOG = "Remove the key: the journal keeps the log, and `h2kvmctl logs ID` shows it"
_DEFINE = "Rename it to libvirt_import, which defines the domain. Its XML is written in any case"
_DOMAIN = "Remove the key: the domain uses virtio with a serial console. Change it afterwards with `virsh edit`"
_LUKS = "Remove the key, write the passphrase to a file, and set luks_keyfile to its path"
_INJECT = "Remove the key: the guest is repaired, not configured. Use cloud-init or your configuration management"
_WORKERS = "Remove the key: max_concurrent_jobs in the daemon's configuration sets how many jobs run"
_WINDOWS = "Remove the key: Windows drivers are not injected"
_RESUME = "Remove the key: a job whose worker died continues after its last finished stage"

FOREIGN = {
    "command": "Rename it to cmd",
    "output": "Rename it to output_dir",
    "name": "Rename it to vm_name",
    "disk": "Rename it to vmdk",
    "input": "Rename it to vmdk",
    "workdir": "Rename it to conversion_dir",
    "flatten": _FLATTENED,
    "flatten_format": _FLATTENED,
    "no_backup": _UNTOUCHED,
    "verbose": _VERBOSITY,
    "debug": _VERBOSITY,
    "log_file": _LOG,
    "report": _REPORT,
    "libvirt_test": _BOOT,
    "qemu_test": _BOOT,
    "timeout": "Remove the key: the boot check sets its own limit",
    "keep_domain": "Remove the key: `libvirt_import: true` keeps the domain",
    "headless": "Remove the key: the domain always has a serial console",
    "emit_domain_xml": _DEFINE,
    "virsh_define": _DEFINE,
    "no_regen_initramfs": "Write `regen_initramfs: false`",
    "initramfs_add_drivers": "Remove the key: virtio and what it needs are added from the guest's own modules",
    "enable_recovery": _RESUME,
    "parallel_processing": _WORKERS,
    "workers": _WORKERS,
    "vms": "Write one file for each VM, and drop them all",
    **dict.fromkeys(("vcenter", "vc_user", "vc_password", "vc_password_env", "vc_insecure", "vs_action"), _VCENTER),
    **dict.fromkeys(("dc_name", "datastore", "esxi_host", "vsphere", "host"), _VCENTER),
    **dict.fromkeys(("user", "port", "identity", "ssh_opt", "sudo", "ssh_user", "ssh_host", "ssh_port"), _LIVE),
    **dict.fromkeys(("ssh_key", "identity_file", "password"), _LIVE),
    **dict.fromkeys(("guest_os", "disk_bus", "disk_dev", "disk_cache", "net_model", "graphics"), _DOMAIN),
    **dict.fromkeys(("graphics_listen", "video", "usb_tablet", "clock", "ovmf_code", "nvram_vars"), _DOMAIN),
    **dict.fromkeys(("ovmf_vars_template", "cloudinit_iso", "cloudinit_seed_iso"), _DOMAIN),
    **dict.fromkeys(("luks_enable", "luks_passphrase", "luks_passphrase_env"), _LUKS),
    **dict.fromkeys(("luks_mapper_prefix",), _LUKS),
    **dict.fromkeys(("cloud_init_config", "firstboot_scripts", "network_config_inject"), _INJECT),
    **dict.fromkeys(("user_config_inject", "service_config_inject", "hostname_config_inject"), _INJECT),
    **dict.fromkeys(("windows", "virtio_drivers_dir", "win_stage", "win_driver_iso", "virtio_win_iso"), _WINDOWS),
}
"""Keys of hyper2kvm that are not supported here, and what to do instead."""

RULES = Rules(
    remedies=REMEDIES,
    foreign=FOREIGN,
    one_or_more=frozenset({"vmdk", "luks_keyfile", "resize"}),
    absolute_because="Use an absolute path: relative paths are not resolved in files dropped into the spool",
)


INTERFACE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}"
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NETWORKS: dict[TargetName, tuple[re.Pattern[str], str]] = {
    "qemu": (re.compile(rf"(bridge:)?{INTERFACE}"), "Write the name of a bridge of the host, such as br0"),
    "proxmox": (re.compile(rf"(bridge:)?{INTERFACE}"), "Write the name of a bridge of the node, such as vmbr0"),
    "kubevirt": (
        re.compile(rf"({LABEL}/)?{LABEL}(\.{LABEL})*"),
        "Write the name of a NetworkAttachmentDefinition, such as vlan10 or namespace/vlan10",
    ),
    "openstack": (re.compile(r"[^-].*"), "Write the name or the ID of a network"),
}
"""Networks of targets with a rule for their names, and the remedy."""


class Rejected(InvalidInput):
    """A migration YAML with errors: the first MAX_PROBLEMS, each with its place and remedy, and how many more."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = problems[0]
        where = f"line {first.line}: " if first.line else ""
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            "spec-invalid", f"the migration YAML is refused: {where}{first.message}{more}", hint=first.hint
        )
        self.problems = _first(problems)


def _first(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    if len(problems) <= MAX_PROBLEMS + 1:  # one more error is as short as the count of the rest
        return problems
    message = f"and {len(problems) - MAX_PROBLEMS} more errors"
    rest = yaml_source.problem("spec-invalid", message, "Correct the errors above, then try again")
    return *problems[:MAX_PROBLEMS], rest


def parse(text: str, *, base: Path | None = None, default_name: str) -> Migration:
    """The migration that `text` describes. Reads nothing but its arguments.

    `base` is the absolute directory to which relative paths refer; without one they are refused. `default_name`
    is the VM's name when the text gives none: the stem of the YAML's file name.

    Raises Rejected (`spec-invalid`) with the problems in order of place.
    """
    names = {"vm_name": default_name} if VM_NAME.fullmatch(default_name) else {}
    document = yaml_source.read(text)
    bound = bind(document, Migration, replace(RULES, base=base), defaults=names)
    conflicts = () if document.root is None else _conflicts(bound)
    problems = in_order([*(_missing(one, default_name) for one in bound.problems), *conflicts])
    if problems or bound.value is None:
        raise Rejected(problems)
    return bound.value


def load(path: Path, *, base: Path | None = None) -> Migration:
    """`parse` for a file; its stem is the default name. Also raises InvalidInput (`file-...`)."""
    return parse(yaml_source.read_file(path), base=base, default_name=path.stem)


def _missing(one: Problem, default_name: str) -> Problem:
    if one.code != "key-missing":
        return one
    message = f"the key vm_name is missing, and the file name {yaml_source.shown(default_name)} is not a valid vm_name"
    return one.with_changes(message=message, hint=f"Add the key vm_name. {REMEDIES['vm_name']}")


def _conflicts(bound: Bound[Migration]) -> Iterator[Problem]:
    """Errors that `bind` cannot find, in the fields that are valid by themselves."""
    asked = Migration(vm_name="x").with_changes(**bound.valid)

    def conflict(key: str, message: str, hint: str) -> Problem:
        return yaml_source.problem("value-conflict", message, hint, place=bound.places.get(key), key=key)

    named = [key for key in SOURCE_KEYS if key in bound.given]
    if not named:
        message = f"none of the keys {', '.join(SOURCE_KEYS)} names a source"
        yield yaml_source.problem("key-missing", message, NAME_THE_SOURCE, key="vmdk")
    if bound.valid.get("vmdk") == ():
        yield conflict("vmdk", "vmdk is empty", "Give it at least one element, or remove the key")
    for key in named[1:]:
        yield conflict(key, f"{named[0]} and {key} both name a source", "Keep the one that describes the machine")
    yield from _source_conflicts(asked, conflict)
    suffixes = SUFFIXES[asked.out_format]
    if asked.to_output and Path(asked.to_output).suffix.lower() not in suffixes:
        message = f"to_output {asked.to_output} is not the name of a {asked.out_format} image"
        yield conflict(
            "to_output", message, f"Choose a name that ends in {' or '.join(suffixes)}, or change out_format"
        )
    if asked.compress and asked.out_format == "raw":
        yield conflict("compress", "compress is true but a raw image cannot be compressed", "Use out_format: qcow2")
    if asked.compress and asked.sparse == "never":
        message = "compress is true but sparse: never reserves the full size"
        yield conflict("compress", message, "Remove one of the two")
    if asked.libvirt_pool and not asked.libvirt_import:
        message = "libvirt_pool is for a domain that is defined, and libvirt_import is false"
        yield conflict("libvirt_pool", message, "Set libvirt_import: true, or remove libvirt_pool")
    if asked.libvirt_import and AMBIGUOUS_NAME.fullmatch(asked.vm_name):
        message = f"vm_name {asked.vm_name} would be read by libvirt as the ID or UUID of a domain"
        yield conflict("vm_name", message, "Add a letter, or set libvirt_import: false")
    if asked.libvirt_import and asked.target != "libvirt":
        message = f"libvirt_import is true but target is {asked.target}"
        yield conflict("libvirt_import", message, "Remove one of the two: only target: libvirt defines a domain")
    yield from _network_problems(bound, asked)
    if not LIBVIRT_URI.fullmatch(asked.libvirt_uri):
        message = f"libvirt_uri is {yaml_source.shown(asked.libvirt_uri)}, which is not the address of a QEMU/KVM host"
        hint = "Write qemu:///system or qemu:///session"
        yield yaml_source.problem(
            "value-invalid", message, hint, place=bound.places.get("libvirt_uri"), key="libvirt_uri"
        )


def _network_problems(bound: Bound[Migration], asked: Migration) -> Iterator[Problem]:
    """Networks that the target cannot have."""
    if asked.target not in NETWORKS:
        return
    pattern, hint = NETWORKS[asked.target]
    for name, network in asked.network_map.items():
        if not pattern.fullmatch(network):
            key = f"network_map.{name}"
            message = f"{yaml_source.shown(key)} is {yaml_source.shown(network)}, which is no network of {asked.target}"
            yield yaml_source.problem(
                "value-invalid", message, hint, place=bound.places.get(key), key=yaml_source.shown(key)
            )


def _source_conflicts(asked: Migration, conflict: Callable[[str, str, str], Problem]) -> Iterator[Problem]:
    """Keys that belong to another kind of source."""
    if asked.configuration is not None and not (asked.ovf or asked.ova):
        message = "configuration is given, but only ovf and ova have configurations"
        yield conflict("configuration", message, "Remove the key configuration")
    if asked.datastore_map and asked.vmx is None:
        hint = "Name the machine's .vmx in vmx, or remove the key"
        yield conflict("datastore_map", "datastore_map is given, but no vmx, whose paths it is for", hint)
    if asked.snapshot is None or asked.vmx is not None:
        return
    if asked.vmdk and asked.snapshot != "base":
        message = f"snapshot is {yaml_source.shown(asked.snapshot)}, but with vmdk it can only be base"
        yield conflict("snapshot", message, "Name the machine's .vmx in vmx to choose a snapshot by its name")
    if asked.ovf is not None or asked.ova is not None:
        message = "snapshot is given, but an OVF or OVA has no snapshots"
        yield conflict("snapshot", message, "Remove the key")
