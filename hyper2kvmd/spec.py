"""Turns the untrusted text of a migration YAML into frozen `Migration`s, or into a list of errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from hyper2kvmd import yaml_source
from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.hyper2kvm_keys import COMMANDS
from hyper2kvmd.model.asked import SOURCE_KEYS, Migration, TargetName
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.spec_batch import Machines, find_machines
from hyper2kvmd.spec_queue import machine_problems, window_problems
from hyper2kvmd.spec_translation import MANUAL, decide, is_null
from hyper2kvmd.spec_windows import address_faults, tools_by_older_key
from hyper2kvmd.yaml_binding import Bound, Rules, bind, in_order
from hyper2kvmd.yaml_source import Document, Documents, Listing, Mapping, Position, Scalar

VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LIBVIRT_URI = re.compile(
    r"test:///default|qemu(\+(ssh|libssh2?|tls|tcp|unix))?://"
    r"(([A-Za-z0-9_][A-Za-z0-9._-]*@)?([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)?/(system|session)"
)
"""No parameters: `command=` and `socket=` start programs and reach sockets with the daemon's rights. Neither user nor
host begins with a hyphen, which ssh would read as an option."""
TEST_URI = "test:///default"
AMBIGUOUS_NAME = re.compile(r"[0-9]+|([0-9A-Fa-f]-*){32}")
"""virsh looks for a domain by ID, then by UUID, then by name. libvirt accepts a UUID with hyphens anywhere between its
digits (virUUIDParse)."""
MAX_PROBLEMS = 20
"""Errors of one YAML that are listed. A YAML can have thousands, and every listed error goes on record."""
SUFFIXES = {"qcow2": (".qcow2", ".qcow", ".img"), "raw": (".raw", ".img")}
"""Suffixes of image names, for each format. None of them is used for other files."""

WITH_LENGTH = "address with the length of its network's prefix, such as 10.0.0.5/24"
WITHOUT_MASK = f"Remove it, and write in address an {WITH_LENGTH}"
REMEDIES = {
    "cmd": f"Write one of {', '.join(COMMANDS)}, or remove the key",
    "vm_name": "Use letters, digits, '.', '_' and '-', at most 63, and begin with a letter or a digit",
    "to_output": "Give a file name of letters, digits, '.', '_' and '-'. Set its directory in output_dir",
    "datastore_map.[key]": "Write the name of a datastore, or the UUID of its volume, as in the paths in the .vmx",
    "memory": "Write MiB as a plain number, 64 to 16777216, or a size such as 4G, up to 16T",
    "libvirt_pool": "Write a name as `virsh pool-list` shows it, of letters, digits, '.', '_' and '-'",
    "network_map": "Write lines of the form `VM Network: lan`, with a libvirt network or `bridge:br0` on the right",
    "resize": "Write the new size of the first disk, such as 50G, or what to add to it, such as +10G; or a list for "
    "several disks. The units are K, M, G and T",
    "hooks.before": "Write names of programs from hooks of the configuration, at most 8",
    "hooks.after": "Write names of programs from hooks of the configuration, at most 8",
    "win_net": "Write keep, dhcp, or a list with lines of the form `- {mac: 00:50:56:01:02:03, address: 192.0.2.10/24, "
    "gateway: 192.0.2.1, dns: [192.0.2.53]}`",
    "win_net.mac": "Write the MAC address of a card as `h2kvmctl plan` shows it, such as 00:50:56:01:02:03",
    "win_net.address": f"Write an IPv4 {WITH_LENGTH}",
    "win_net.gateway": "Write the IPv4 address of the router, such as 10.0.0.1, or remove the key",
    "win_net.dns": "Write IPv4 addresses, such as [10.0.0.53, 10.0.0.54], at most 16",
    "win_net.mask": WITHOUT_MASK,
    "win_net.netmask": WITHOUT_MASK,
    "win_net.prefix": WITHOUT_MASK,
    "win_net.ip": f"Name it address, and write an {WITH_LENGTH}",
    "batch": "Write a name of at most 255 characters, without a slash",
    "after": "Write the names of machines or batches, at most 32, such as `after: [db01, storage]`",
    "window": "Write `window: {days: [sat, sun], from: '22:00', to: '06:00', timezone: Europe/Berlin}`. Each of the "
    "four keys may be left out",
    "machine": "Write a machine type as `virsh capabilities` lists it, such as q35",
}

NAME_THE_SOURCE = (
    "Add a line `ova: /path/to/machine.ova`, or ovf:, vmx: or libvirt_xml: with the path of such a file, or "
    "`vmdk: /path/to/disk.vmdk` for a disk of any format (`vmdk: [first, second]` for several)"
)
RULES = Rules(
    remedies=REMEDIES,
    manual=MANUAL,
    one_or_more=frozenset(
        {"vmdk", "luks_keyfile", "resize", "hooks.before", "hooks.after", "win_net.dns", "after", "window.days"}
    ),
    absolute_because="Use an absolute path: relative paths are not resolved in files dropped into the spool",
    no_home_because="Use an absolute path: the home directory of the submitter is not known",
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


@dataclass(frozen=True)
class Parsed:
    """One machine of a migration YAML."""

    migration: Migration
    notes: tuple[Concern, ...] = ()
    """Keys of hyper2kvm that have no effect here."""


@dataclass(frozen=True)
class Surroundings:
    """What a text depends on besides itself: see `parse`."""

    default_name: str
    base: Path | None
    home: Path | None
    files: tuple[str, ...] = ()
    """If the text comes from several files: their names in order."""


def parse(text: str, *, base: Path | None = None, home: Path | None = None, default_name: str) -> tuple[Parsed, ...]:
    """The migrations that `text` describes, at least one, in its order. Reads nothing but its arguments.

    `base` is the absolute directory to which relative paths refer, and `home` the one for which `~` stands; without
    them such paths are refused. `default_name` is the VM's name when the text gives none: the stem of the YAML's file
    name.

    Raises Rejected (`spec-invalid`) with the problems in order of place.
    """
    return _parsed([yaml_source.read_all(text)], Surroundings(default_name, base, home))


def load(paths: Sequence[Path], *, base: Path | None = None, home: Path | None = None) -> tuple[Parsed, ...]:
    """`parse` for one or more files, of which later ones override keys of earlier ones.

    The default name is the stem of the file that names the source. Also raises InvalidInput (`file-...`).
    """
    texts = [(path, yaml_source.read_file(path)) for path in paths]
    streams = [yaml_source.read_all(text, str(path) if len(paths) > 1 else None) for path, text in texts]
    return _parsed(streams, Surroundings(paths[-1].stem, base, home, tuple(map(str, paths))))


def _parsed(streams: Sequence[Documents], around: Surroundings) -> tuple[Parsed, ...]:
    problems = [one for stream in streams for one in stream.problems]
    files = [stream.roots for stream in streams if stream.roots is not None]
    machines = find_machines(files) if len(files) == len(streams) else Machines((), (), listed=False)
    problems += machines.problems
    parsed: list[Parsed] = []
    places: list[Position] = []
    names: dict[str, Position] = {}
    images: dict[tuple[Path | None, str], str] = {}
    for root in machines.roots:
        one, errors = _machine(root, around, machines.listed)
        problems += errors
        if one is not None:
            parsed.append(one)
            places.append(root.place)
            problems += _clash(one.migration, root.place, names, images)
    problems += machine_problems([(one.migration, place) for one, place in zip(parsed, places, strict=True)])
    if problems:
        ranks = {file: number for number, file in enumerate(around.files)}
        found = sorted(in_order(dict.fromkeys(problems)), key=lambda one: ranks.get(one.file or "", len(ranks)))
        raise Rejected(tuple(found))
    return tuple(parsed)


def _machine(root: Mapping, around: Surroundings, listed: bool) -> tuple[Parsed | None, list[Problem]]:
    """The migration of one complete mapping, or its errors."""
    translated = decide(root, around.base)
    name = _own_name(translated.root) if listed else _file_name(translated.root) or around.default_name
    rules = replace(RULES, base=around.base, home=around.home)
    names = {"vm_name": name} if VM_NAME.fullmatch(name) else {}
    defaults = {**names, **tools_by_older_key(translated.root)}
    bound = bind(Document(translated.root, ()), Migration, rules, defaults=defaults)
    place = root.place if listed else None
    missing = [_missing(one, name, place) for one in bound.problems]
    problems = [*translated.problems, *missing, *_conflicts(bound, place)]
    if problems or bound.value is None:
        return None, problems
    return Parsed(bound.value, translated.notes), []


def _file_name(root: Mapping) -> str:
    """The stem of the file that names the source, if the text comes from several files. Others may be shared."""
    files = [entry.place.file for entry in root.entries if entry.key in SOURCE_KEYS and not is_null(entry.value)]
    return PurePath(files[0]).stem if files and files[0] else ""


def _own_name(root: Mapping) -> str:
    """The default name of a machine in a list: the stem of its image, or of its source."""
    values = {entry.key: entry.value for entry in root.entries}
    for key in ("to_output", *SOURCE_KEYS):
        value = values.get(key)
        first = value.items[0] if isinstance(value, Listing) and value.items else value
        if isinstance(first, Scalar):
            return PurePath(first.text).stem
    return ""


def _clash(
    asked: Migration, place: Position, names: dict[str, Position], images: dict[tuple[Path | None, str], str]
) -> Iterator[Problem]:
    """Errors of machines that cannot both be results of one file. `names` and `images` are those of the others."""
    name = asked.vm_name
    if name in names:
        message = f"two machines of the file have the name {name}; the other one begins on line {names[name].line}"
        hint = "Give each a vm_name of its own"
        yield yaml_source.problem("value-conflict", message, hint, place=place, key="vm_name")
        return
    image = asked.output_dir, asked.output_names(1)[0]
    if image in images:
        message = f"{name} and {images[image]} have the same image {image[1]}"
        hint = "Give each a to_output or an output_dir of its own"
        yield yaml_source.problem("value-conflict", message, hint, place=place, key="to_output")
    names[name] = place
    images.setdefault(image, name)


def _missing(one: Problem, default_name: str, place: Position | None) -> Problem:
    if one.code != "key-missing" or one.key != "vm_name":
        return one
    what = "file name" if place is None else "name of its image or source"
    message = f"the key vm_name is missing, and the {what} {yaml_source.shown(default_name)} is not a valid vm_name"
    hint = f"Add the key vm_name. {REMEDIES['vm_name']}"
    return yaml_source.problem("key-missing", message, hint, place=place, key=one.key)


def _conflicts(bound: Bound[Migration], place: Position | None) -> Iterator[Problem]:
    """Errors that `bind` cannot find, in the fields that are valid by themselves. `place` is that of the machine."""
    asked = Migration(vm_name="x").with_changes(**bound.valid)

    def conflict(key: str, message: str, hint: str) -> Problem:
        return yaml_source.problem("value-conflict", message, hint, place=bound.places.get(key), key=key)

    named = [key for key in SOURCE_KEYS if key in bound.given]
    if not named:
        message = f"none of the keys {', '.join(SOURCE_KEYS)} names a source"
        yield yaml_source.problem("key-missing", message, NAME_THE_SOURCE, place=place, key="vmdk")
    for key in named:
        if key in bound.valid and not bound.valid[key]:
            yield conflict(key, f"{key} is empty", "Write the path of the source, or remove the key")
    for key in named[1:]:
        yield conflict(key, f"{named[0]} and {key} both name a source", "Keep the one that describes the machine")
    yield from _source_conflicts(asked, conflict)
    yield from window_problems(asked, bound.written.get("window"), conflict)
    needed = COMMANDS[asked.cmd]
    if named and needed is not None and needed not in named:
        message = f"cmd: {asked.cmd} needs the key {needed}, but {named[0]} names the source"
        yield conflict("cmd", message, "Remove cmd, or correct it")
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
    if asked.libvirt_import and asked.libvirt_uri == TEST_URI:
        message = f"libvirt_uri is {TEST_URI}, whose test driver forgets a domain as soon as virsh ends"
        yield conflict("libvirt_uri", message, "Name a QEMU/KVM host such as qemu:///system, or remove libvirt_import")
    invalid = any((one.key or "").startswith("win_net") for one in bound.problems)
    for fault in () if invalid else address_faults(asked):
        yield conflict("win_net", fault.fact, fault.remedy)
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
    if asked.ova_ca is not None and not (asked.ovf or asked.ova):
        yield conflict(
            "ova_ca", "ova_ca is given, but only packages of ovf and ova are signed", "Remove the key ova_ca"
        )
    if asked.datastore_map and asked.vmx is None:
        hint = "Name the machine's .vmx in vmx, or remove the key"
        yield conflict("datastore_map", "datastore_map is given, but no vmx, whose paths it is for", hint)
    if asked.snapshot is None or asked.vmx is not None:
        return
    if asked.vmdk and asked.snapshot != "base":
        message = f"snapshot is {yaml_source.shown(asked.snapshot)}, but with vmdk it can only be base"
        yield conflict("snapshot", message, "Name the machine's .vmx in vmx to choose a snapshot by its name")
    if asked.ovf is not None or asked.ova is not None or asked.libvirt_xml is not None:
        message = "snapshot is given, but an OVF, an OVA and the XML of a domain have no snapshots"
        yield conflict("snapshot", message, "Remove the key")
