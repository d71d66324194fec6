"""Migration YAML to `Migration`, or to every error at once."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyper2kvmd import spec
from hyper2kvmd.model.asked import Migration, StaticAddress
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.spec import REMEDIES
from tests.support.parsed import only_migration

NETWORKS = {"VM Network": "lan", "no": "bridge:br0", "a-b": "7"}
"""Names are text, whatever YAML would make of them."""


def parse(text: str, name: str = "web01", base: Path | None = None) -> Migration:
    return only_migration(spec.parse(text, default_name=name, base=base))


def problems(text: str, name: str = "web01", base: Path | None = None) -> tuple[Problem, ...]:
    with pytest.raises(spec.Rejected) as caught:
        parse(text, name, base)
    assert caught.value.code == "spec-invalid"
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return caught.value.problems


def only(text: str, name: str = "web01", base: Path | None = None) -> Problem:
    (one,) = problems(text, name, base)
    return one


def test_one_key_is_enough() -> None:
    assert parse("vmdk: /srv/web01.vmdk\n") == Migration(vmdk=(Path("/srv/web01.vmdk"),), vm_name="web01")


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("vm_name: no", "vm_name", "no"),
        ("vm_name: 0123", "vm_name", "0123"),
        ("vm_name: 1.5", "vm_name", "1.5"),
        ("vm-name: db", "vm_name", "db"),
        ("vm_name: 'null'", "vm_name", "null"),
        ("machine: 1e3", "machine", "1e3"),
        ("machine: ~", "machine", None),
        ("uefi: null", "uefi", None),
        ("uefi: OFF", "uefi", False),
        ("no-grub: on", "no_grub", True),
        ("compress: Yes", "compress", True),
        ('memory: "4096"', "memory", 4096),
        ("memory: 4G", "memory", 4096),
        ("memory: 65536K", "memory", 64),
        ("resize: 52428800K", "resize", ("52428800K",)),
        ("libvirt_uri: qemu+ssh://root@kvm1/system", "libvirt_uri", "qemu+ssh://root@kvm1/system"),
        ("libvirt_uri: test:///default", "libvirt_uri", "test:///default"),
        ("fstab-mode: noop", "fstab_mode", "noop"),
        ("output_dir: /srv/out", "output_dir", Path("/srv/out")),
        ("to_output: web.img", "to_output", "web.img"),
        ("secure-boot: no", "secure_boot", False),
        ("tpm: yes", "tpm", True),
        ("network_map: {VM Network: lan, no: bridge:br0, a-b: 7}", "network_map", NETWORKS),
        ("network-map: {}", "network_map", {}),
    ],
)
def test_scalars_are_read_as_their_field(line: str, field: str, value: object) -> None:
    assert getattr(parse(f"vmdk: /a.vmdk\n{line}\n"), field) == value


@pytest.mark.parametrize(
    ("line", "key", "column", "code"),
    [
        ("memory: 0x1000", "memory", 9, "value-invalid"),
        ("memory: 4_096", "memory", 9, "value-invalid"),
        ("memory: 010000", "memory", 9, "value-invalid"),
        ("memory: 4GB", "memory", 9, "value-invalid"),
        ("memory: 4g", "memory", 9, "value-invalid"),
        ("memory: 1.5G", "memory", 9, "value-invalid"),
        ("memory: 65537K", "memory", 9, "value-invalid"),
        ("memory: 32T", "memory", 9, "value-invalid"),
        ("memory: 63", "memory", 9, "value-invalid"),
        ("vcpus: 1:30", "vcpus", 8, "value-invalid"),
        ("vcpus: 0", "vcpus", 8, "value-invalid"),
        ("priority: 10", "priority", 11, "value-invalid"),
        ("priority: ٣", "priority", 11, "value-invalid"),
        ("compress: y", "compress", 11, "value-invalid"),
        ("compress: 1", "compress", 11, "value-invalid"),
        ("compress:", "compress", 10, "value-invalid"),
        ("compress: [true]", "compress", 11, "value-invalid"),
        ("vm_name: {a: b}", "vm_name", 10, "value-invalid"),
        ("vm_name: ../x", "vm_name", 10, "value-invalid"),
        ("vm_name: -x", "vm_name", 10, "value-invalid"),
        ("to_output: a/b:c.qcow2\noutput_dir: /a", "to_output", 12, "value-invalid"),
        ("machine: Q35", "machine", 10, "value-invalid"),
        ("output_dir: out", "output_dir", 13, "value-invalid"),
        ("output_dir: ~/out", "output_dir", 13, "value-invalid"),
        ("output_dir: ~alice/out", "output_dir", 13, "value-invalid"),
        ("conversion_dir: ''", "conversion_dir", 17, "value-invalid"),
        ("out_format: vdi", "out_format", 13, "value-invalid"),
        ("verify: bot", "verify", 9, "value-invalid"),
        ("cmd: vsphere", "cmd", 6, "value-invalid"),
        ("ova_ca: /srv/ca.pem", "ova_ca", 9, "value-conflict"),
        ("to_output: web.raw", "to_output", 12, "value-conflict"),
        ("vm_name: '7'\nlibvirt_import: true", "vm_name", 10, "value-conflict"),
        ("vm_name: 6695eb01-f6a4-8304-79aa-97f2502e193f\nlibvirt_import: true", "vm_name", 10, "value-conflict"),
        ("to_output: web.vmdk", "to_output", 12, "value-conflict"),
        ("libvirt_uri: xen:///system", "libvirt_uri", 14, "value-invalid"),
        ("libvirt_uri: qemu:system", "libvirt_uri", 14, "value-invalid"),
        ("libvirt_uri: test:///default\nlibvirt_import: true", "libvirt_uri", 14, "value-conflict"),
        ("libvirt_pool: --help\nlibvirt_import: true", "libvirt_pool", 15, "value-invalid"),
        ("network_map: lan", "network_map", 14, "value-invalid"),
        ("network_map: [lan]", "network_map", 14, "value-invalid"),
        ("network_map: {A: ''}", "network_map.A", 18, "value-invalid"),
        ("network_map: {A: {b: c}}", "network_map.A", 18, "value-invalid"),
        ("network_map: {A: brigde:br0}", "network_map.A", 18, "value-invalid"),
        ("network_map: {A: 'bridge:../br0'}", "network_map.A", 18, "value-invalid"),
        ("network_map: {A: 'bridge:a-name-that-is-too-long'}", "network_map.A", 18, "value-invalid"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(line: str, key: str, column: int, code: str) -> None:
    one = only(f"vmdk: /a.vmdk\n{line}\n")
    assert (one.key, one.line, one.column, one.code) == (key, 2, column, code)
    assert one.hint


def test_a_mapping_takes_any_name_and_keeps_every_error() -> None:
    text = "vmdk: /a.vmdk\nnetwork_map:\n  VM Network: ''\n  B: lan\n  C: [x]\n"
    assert [(one.key, one.line) for one in problems(text)] == [("network_map.VM Network", 3), ("network_map.C", 5)]
    assert {one.hint for one in problems(text)} == {REMEDIES["network_map"]}
    crowd = ", ".join(f"n{number}: lan" for number in range(65))
    assert only(f"vmdk: /a.vmdk\nnetwork_map: {{{crowd}}}\n").key == "network_map"


@pytest.mark.parametrize("key", ["vmdk", "vmx", "ovf", "ova"])
def test_a_source_key_without_a_value(key: str) -> None:
    assert only(f"{key}:\n").key == key


def test_keys_that_contradict_each_other() -> None:
    assert only("vmdk: /a\nout_format: raw\ncompress: true\n").key == "compress"
    assert only("vmdk: /a\nsparse: never\ncompress: true\n").key == "compress"
    assert only("vmdk: /a\nlibvirt_pool: fast\n").key == "libvirt_pool"


def test_all_errors_at_once_in_order() -> None:
    text = "vdmk: /a\nvcenter: vc1\nmemory: lots\nvcpus: 0\nvcpus: 2\ncmd: azure\nout_format: raw\nto_output: a.qcow2\n"
    found = problems(text)
    assert [(one.key, one.line) for one in found] == [
        ("vdmk", 1),
        ("vcenter", 2),
        ("memory", 3),
        ("vcpus", 4),
        ("vcpus", 5),
        ("cmd", 6),
        ("to_output", 8),
        ("vmdk", None),
    ]


def test_a_given_key_with_an_error_is_not_also_missing() -> None:
    assert [one.code for one in problems("vmdk: {a: /a}\nvm_name: x\n")] == ["value-invalid"]
    assert [one.code for one in problems("a: &a /x\nvmdk: *a\n")] == ["key-unknown", "yaml-refused", "yaml-refused"]


def test_unknown_keys_get_a_suggestion_or_the_list() -> None:
    assert only("vmdk: /a\nvm_nmae: x\n").hint == "Did you mean vm_name?"
    assert only("vmdk: /a\nVMDK: /b\n").hint == "Did you mean vmdk?"
    assert only("vmdk: /a\nlibvirt_x: x\n").hint.count("libvirt_") > 1
    assert only("vmdk: /a\nzzzzzz: x\n").hint.endswith("`man hyper2kvm-migration` has all of them")


def test_no_remedy_is_for_a_key_that_does_not_exist() -> None:
    assert {key.partition(".")[0] for key in spec.REMEDIES} <= set(Migration.model_fields)


def test_several_disks_are_a_list() -> None:
    asked = parse("vmdk: [/srv/web01.vmdk, data.vmdk]\nluks_keyfile: /srv/key\n", base=Path("/srv"))
    assert asked.vmdk == (Path("/srv/web01.vmdk"), Path("/srv/data.vmdk"))
    assert asked.luks_keyfile == (Path("/srv/key"),)
    assert asked.output_names(2) == ("web01.qcow2", "web01-disk2.qcow2")
    assert parse("vmdk: [/a, /b]\nto_output: db.img\n").output_names(2) == ("db.img", "db-disk2.img")
    assert "empty" in only("vmdk: []\n").message


def test_relative_paths_need_a_base() -> None:
    asked = parse("vmdk: disks/a.vmdk\noutput_dir: ./out\n", base=Path("/srv/lab"))
    assert (asked.vmdk, asked.output_dir) == ((Path("/srv/lab/disks/a.vmdk"),), Path("/srv/lab/out"))
    assert "spool" in only("vmdk: disks/a.vmdk\n").hint


def test_a_file_name_that_cannot_be_a_vm_name() -> None:
    one = only("vmdk: /a\n", name="my vm")
    assert (one.code, one.key) == ("key-missing", "vm_name")
    assert "my vm" in one.message
    assert parse("vmdk: /a\nvm_name: fine\n", name="my vm").vm_name == "fine"


def test_the_first_twenty_errors_are_named_and_the_others_counted() -> None:
    def found(number: int) -> tuple[Problem, ...]:
        with pytest.raises(spec.Rejected) as refusal:
            parse("vmdk: /a\n" + "".join(f"k{n}: x\n" for n in range(number)))
        return refusal.value.problems

    assert [one.line for one in found(21)] == list(range(2, 23))
    named, rest = found(300)[:-1], found(300)[-1]
    assert [one.line for one in named] == list(range(2, 22))
    assert (rest.code, rest.message, rest.line) == ("spec-invalid", "and 280 more errors", None)
    assert spec.Rejected(found(300)).problems == found(300), "as a client reads it"


def test_paths_that_no_file_system_takes() -> None:
    assert only(f"vmdk: /{'a' * 256}\n").key == "vmdk"


LINES = st.builds(
    lambda key, value: f"{key}: {value}\n",
    st.sampled_from([*Migration.model_fields, "vm-name", "flatten", "x", "<<", "? a", "- b"]),
    st.one_of(
        st.sampled_from(["", "~", "yes", "0", "-1", "07", "1:30", "[a]", "{a: b}", "&a b", "*a", "!!int 3", "|", "'"]),
        st.sampled_from(["/a.vmdk", "a", "raw", "qcow2", "q35", "qemu:///system", "9" * 4000, "/" + "a/" * 3000]),
        st.text(max_size=20),
    ),
)


@settings(max_examples=400)
@given(st.lists(LINES, max_size=8).map("".join), st.text(max_size=20), st.sampled_from([None, Path("/base")]))
def test_nothing_but_a_migration_or_a_rejection(text: str, name: str, base: Path | None) -> None:
    found: tuple[Problem, ...] = ()
    asked: Migration | None = None
    try:
        asked = only_migration(spec.parse(text, base=base, default_name=name))
    except spec.Rejected as refusal:
        found = refusal.problems
    assert asked is not None or found
    assert all(one.hint and one.message.isprintable() for one in found)
    if asked is not None:
        assert all(path.is_absolute() for path in asked.vmdk)
        assert Migration.model_validate_json(asked.model_dump_json()) == asked


VALID = st.fixed_dictionaries(
    {"vmdk": st.just("/srv/a.vmdk")},
    optional={
        name: st.sampled_from([str(choice) for choice in typing.get_args(field.annotation)])
        for name, field in Migration.model_fields.items()
        if typing.get_origin(field.annotation) is typing.Literal and name not in ("cmd", "target")
    }
    | {
        name: st.sampled_from(["true", "no", "On"])
        for name, field in Migration.model_fields.items()
        if field.annotation is bool and name != "compress"
    },
)


@given(VALID, st.booleans())
def test_every_valid_combination_parses(values: dict[str, str], dashes: bool) -> None:
    text = "".join(f"{key.replace('_', '-') if dashes else key}: {value}\n" for key, value in values.items())
    asked = parse(text)
    for key, value in values.items():
        got = asked.vmdk[0] if key == "vmdk" else getattr(asked, key)
        assert got == (value.lower() in ("true", "on") if isinstance(got, bool) else type(got)(value))


@pytest.mark.parametrize("target", ["qemu", "proxmox", "kubevirt", "openstack"])
def test_only_libvirt_defines_a_domain(target: str) -> None:
    one = only(f"vmdk: /srv/a.vmdk\ntarget: {target}\nlibvirt_import: true\n")
    assert (one.code, one.key, one.line) == ("value-conflict", "libvirt_import", 3)
    assert parse(f"vmdk: /srv/a.vmdk\ntarget: {target}\nlibvirt_import: false\n").target == target


@pytest.mark.parametrize(
    ("target", "good", "bad"),
    [
        ("qemu", "bridge:br0", "a bridge"),
        ("proxmox", "vmbr0", "vmbr0,tag=3"),
        ("kubevirt", "apps/vlan10", "VLAN10"),
        ("openstack", "a network", "-x"),
    ],
)
def test_networks_are_names_of_the_target(target: str, good: str, bad: str) -> None:
    text = f"vmdk: /srv/a.vmdk\ntarget: {target}\nnetwork_map:\n  VM Network: "
    assert parse(f"{text}{good}\n").network_map == {"VM Network": good}
    one = only(f"{text}{bad}\n")
    assert (one.code, one.key, one.line) == ("value-invalid", "network_map.VM Network", 4)


def test_addresses_of_windows_cards() -> None:
    cards = "  - {mac: 00-50-56-01-02-03, address: 192.0.2.10/24, gateway: 192.0.2.1, dns: 192.0.2.53}\n"
    asked = parse(f"vmdk: /a.vmdk\nwin_net:\n{cards}").win_net
    expected = StaticAddress(mac="00-50-56-01-02-03", address="192.0.2.10/24", gateway="192.0.2.1", dns=("192.0.2.53",))
    assert asked == (expected,)
    assert parse("vmdk: /a.vmdk\nwin_net: dhcp\n").win_net == "dhcp"


CARD = "mac: 00:50:56:01:02:03"
OTHER_CARD = "mac: 00:50:56:01:02:04"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("static", "Write keep, dhcp, or a list"),
        ("[dhcp]", "Write keep, dhcp, or a list"),
        (f"{{{CARD}, address: 192.0.2.10/24}}", "Write keep, dhcp, or a list"),
        ("[]", "Write win_net: dhcp"),
        (f"[{{{CARD}}}]", "with the length of its network's prefix"),
        (f"[{{{CARD}, address: 192.0.2.10/24}}, {{{OTHER_CARD}}}]", "with the length of its network's prefix"),
        ("[{mac: 1, address: 192.0.2.10/24}]", "h2kvmctl plan"),
        ("[{mac: 01:50:56:01:02:03, address: 192.0.2.10/24}]", "h2kvmctl plan"),
        (f"[{{{CARD}, address: 192.0.2.10}}]", "such as 10.0.0.5/24"),
        (f"[{{{CARD}, address: 192.0.2.300/24}}]", "such as 10.0.0.5/24"),
        (f"[{{{CARD}, address: 192.0.2.10/24, mask: 255.255.255.0}}]", "Remove it, and write in address"),
        (f"[{{{CARD}, address: 192.0.2.10/24, dns: name}}]", "Write IPv4 addresses"),
        (f"[{{{CARD}, address: 192.0.2.0/24}}]", "the address of one host"),
        (f"[{{{CARD}, address: 192.0.2.255/24}}]", "the address of one host"),
        (f"[{{{CARD}, address: 127.0.0.1/8}}]", "the address of one host"),
        (f"[{{{CARD}, address: 192.0.2.10/24, gateway: 192.0.3.1}}]", "Correct the gateway"),
        (f"[{{{CARD}, address: 192.0.2.10/24, gateway: 192.0.2.10}}]", "the address of the router"),
        (f"[{{{CARD}, address: 192.0.2.10/24}}, {{mac: 00-50-56-01-02-03, address: 192.0.2.11/24}}]", "Keep one"),
        (f"[{{{CARD}, address: 192.0.2.10/24}}, {{{OTHER_CARD}, address: 192.0.2.10/24}}]", "an address of its own"),
        (f"[{', '.join([f'{{{CARD}, address: 192.0.2.10/24}}'] * 17)}]", "Write keep, dhcp, or a list"),
    ],
)
def test_what_is_no_address_of_a_windows_card(value: str, remedy: str) -> None:
    with pytest.raises(spec.Rejected) as caught:
        parse(f"vmdk: /a.vmdk\nwin_net: {value}\n")
    (problem,) = caught.value.problems
    assert str(problem.key).startswith("win_net") and "[" not in problem.message
    assert problem.line == 2 and remedy in problem.hint


@pytest.mark.parametrize("address", ["192.0.2.0/31", "192.0.2.9/32", "198.51.100.1/25"])
def test_short_networks_have_no_addresses_of_their_own(address: str) -> None:
    cards = parse(f"vmdk: /a.vmdk\nwin_net: [{{{CARD}, address: {address}}}]\n").win_net
    assert isinstance(cards, tuple) and [card.address for card in cards] == [address]


@pytest.mark.parametrize(
    ("keys", "tools"),
    [
        ("remove_vmware_tools: true", "remove"),
        ("remove_vmware_tools: false", "disable"),
        ("remove_vmware_tools: true\nwin_tools: keep", "keep"),
    ],
)
def test_tools_are_removed_from_windows_by_the_older_key_too(keys: str, tools: str) -> None:
    assert parse(f"vmdk: /a.vmdk\n{keys}\n").win_tools == tools
