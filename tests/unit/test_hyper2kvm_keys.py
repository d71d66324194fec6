"""Files of hyper2kvm's users: what each key becomes, and that the page about it is current."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd import spec
from hyper2kvmd.hyper2kvm_keys import BY_KEY, COMMANDS, OTHER_COMMANDS, ROWS, markdown
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import Problem
from tests.support.parsed import only_migration

FILES = Path(__file__).parents[1] / "hyper2kvm"
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "from-hyper2kvm.md"
BASE, HOME = Path("/base"), Path("/home/me")


def load(*names: str) -> tuple[spec.Parsed, ...]:
    return spec.load([FILES / f"{name}.yaml" for name in names], base=BASE, home=HOME)


def read(lines: str, **around: Any) -> tuple[Migration, tuple[Concern, ...]]:
    ((one),) = spec.parse(f"vmdk: /a.vmdk\n{lines}", default_name="web01", **around)
    return one.migration, one.notes


def refused(text: str) -> tuple[Problem, ...]:
    with pytest.raises(spec.Rejected) as caught:
        spec.parse(text, default_name="web01")
    return caught.value.problems


EXPECTED: dict[str, dict[str, Any]] = {
    "plain": {"vmdk": Path("/exports/crm/crm.vmdk"), "vm_name": "plain", "to_output": "crm-kvm.qcow2"},
    "everything": {
        "vmdk": Path("/exports/erp/erp.vmdk"),
        "output_dir": Path("/srv/results"),
        "conversion_dir": Path("/srv/scratch"),
        "to_output": "erp.qcow2",
        "checksum": True,
        "print_fstab": True,
        "fstab_mode": "bypath-only",
        "remove_vmware_tools": True,
        "win_tools": "remove",
        "verify": "boot",
        "vm_name": "erp",
        "memory": 8192,
        "vcpus": 6,
        "uefi": True,
        "machine": "q35",
        "libvirt_network": "lan",
    },
    "longer-names": {
        "vmdk": BASE / "exports/hr.vmdk",
        "output_dir": BASE / "results/hr",
        "to_output": "hr.qcow2",
        "regen_initramfs": False,
        "vm_name": "hr-server",
        "memory": 3072,
        "vcpus": 3,
        "libvirt_import": True,
    },
    "smoke": {"vmdk": Path("/exports/dns/dns.vmdk"), "vm_name": "smoke", "verify": "boot", "uefi": False},
    "windows": {
        "vmdk": Path("/exports/ad/ad.vmdk"),
        "vm_name": "windows",
        "virtio_win": Path("/srv/virtio-win"),
    },
    "appliance-ova": {
        "cmd": "ova",
        "ova": BASE / "exports/proxy.ova",
        "output_dir": BASE / "results/images",
        "to_output": "proxy.qcow2",
        "conversion_dir": HOME / "scratch",
        "vm_name": "appliance-ova",
    },
    "appliance-ovf": {"cmd": "ovf", "ovf": Path("/exports/proxy/proxy.ovf"), "vm_name": "appliance-ovf"},
    "cloud-vhd": {"cmd": "vhd", "vmdk": Path("/exports/cloud.vhd"), "vm_name": "cloud-vhd"},
    "cloud-raw": {"cmd": "raw", "vmdk": Path("/exports/cloud.img"), "vm_name": "cloud-raw"},
    "domain-xml": {
        "cmd": "libvirt-xml",
        "libvirt_xml": Path("/etc/libvirt/qemu/shop.xml"),
        "output_dir": Path("/work/out"),
        "vm_name": "domain-xml",
    },
    "machine-vmx": {"cmd": "vmx", "vmx": Path("/exports/shop/shop.VMX"), "vm_name": "shop"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_has_its_meaning(name: str) -> None:
    assert only_migration(load(name)) == Migration.model_validate(EXPECTED[name])


def test_each_fixture_is_expected() -> None:
    assert {path.stem for path in FILES.iterdir()} - set(EXPECTED) == {
        "batch",
        "merge-base",
        "merge-override",
        "merge-run",
    }


def test_every_key_of_a_file_is_honoured_or_noted() -> None:
    ((one),) = load("everything")
    noted = {key for note in one.notes for key in note.message.partition(" ha")[0].split(", ")}
    text = (FILES / "everything.yaml").read_text()
    given = {key for key, value in re.findall(r"^(\w+): (.*)$", text, re.MULTILINE) if value not in ("null", "~")}
    honoured = {"workdir", "libvirt_test", "virsh_define"}
    assert noted == given - set(Migration.model_fields) - honoured
    assert {note.level for note in one.notes} == {"information"}
    assert {note.code for note in one.notes} == {"key-without-effect"}


def test_keys_with_one_reason_are_one_note() -> None:
    _, notes = read("flatten: true\nflatten-format: qcow2\nreport: x.md\n")
    assert [note.message.partition(":")[0] for note in notes] == [
        "flatten, flatten-format have no effect here",
        "report has no effect here",
    ]


@pytest.mark.parametrize("own", ["output_dir: /o\n", "to_output: x.qcow2\n"])
def test_a_section_that_other_keys_decide_is_noted(own: str) -> None:
    _, notes = read(f"output: {{path: /elsewhere/x.qcow2}}\n{own}")
    assert [note.message for note in notes] == ["output has no effect here: `output_dir` and `to_output` decide"]


def test_drivers_that_windows_does_not_get_are_a_warning() -> None:
    ((one),) = load("windows")
    assert [note.message.split(":")[0] for note in one.notes if note.level == "warning"] == [
        "enable_virtio_gpu, windows_virtio have no effect here"
    ]


def test_an_iso_with_drivers_counts_unless_a_folder_is_named() -> None:
    assert read("win_driver_iso: /srv/virtio-win.iso\n")[0].virtio_win == Path("/srv/virtio-win.iso")
    migration, notes = read("win_driver_iso: /srv/b.iso\nvirtio_drivers_dir: /srv/virtio-win\n")
    assert migration.virtio_win == Path("/srv/virtio-win")
    assert [note.message for note in notes] == ["win_driver_iso has no effect here: `virtio_win` decides"]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("lines", "field", "value"),
    [
        ("libvirt_test: yes\n", "verify", "boot"),
        ("libvirt_test: true\nverify: boot\n", "verify", "boot"),
        ("libvirt_test: false\nverify: content\n", "verify", "content"),
        ("libvirt_test: false\nqemu_test: true\n", "verify", "boot"),
        ("fstab_fixes_enable: false\n", "fstab_mode", "noop"),
        ("fstab_fixes_enable: true\nfstab_mode: bypath-only\n", "fstab_mode", "bypath-only"),
        ("grub_fixes_enable: off\n", "no_grub", True),
        ("no_regen_initramfs: true\n", "regen_initramfs", False),
        ("virsh_define: true\n", "libvirt_import", True),
        ("workdir: /w\nconversion_dir: /w\n", "conversion_dir", Path("/w")),
        ("workdir: null\nconversion_dir: /w\n", "conversion_dir", Path("/w")),
        ("conversion_dir: ~\nworkdir: /w\n", "conversion_dir", Path("/w")),
        ("command: local\ncmd: local\n", "cmd", "local"),
        ("libvirt_memory_mb: 512\n", "memory", 512),
        ("compress: null\n", "compress", False),
        ("to_output: /o/x.qcow2\n", "output_dir", Path("/o")),
        ("to_output: ~/o/x.qcow2\n", "output_dir", HOME / "o"),
        ("to_output: sub/x.qcow2\noutput_dir: /o\n", "output_dir", Path("/o/sub")),
        ("to_output: ./x.qcow2\noutput_dir: /o\n", "output_dir", Path("/o")),
        ("to_output: /o/./x.qcow2\noutput_dir: /o/\n", "output_dir", Path("/o")),
    ],
)
def test_a_key_is_honoured(lines: str, field: str, value: object) -> None:
    assert getattr(read(lines, home=HOME)[0], field) == value


@pytest.mark.parametrize(
    ("lines", "code", "key", "line"),
    [
        ("cloud_init_config: /c.yaml\n", "key-unsupported", "cloud_init_config", 2),
        ("keep-domain: true\n", "key-unsupported", "keep_domain", 2),
        ("disk_bus: sata\n", "key-unsupported", "disk_bus", 2),
        ("luks_passphrase: geheim\n", "key-unsupported", "luks_passphrase", 2),
        ("network_fixes_enable: false\n", "key-unsupported", "network_fixes_enable", 2),
        ("windows:\n  license: {reactivate: true}\n", "key-unsupported", "windows", 2),
        ("vcenter: vc1\n", "key-unsupported", "vcenter", 2),
        ("libvirt_test: maybe\n", "value-invalid", "libvirt_test", 2),
        ("output: {path: /o/x.qcow2}\n", "value-invalid", "output", 2),
        ("output: {}\n", "value-invalid", "output", 2),
        ("name: {a: b}\noutput_dir: /o\n", "value-invalid", "name", 2),
        ("input: {path: /b.ova}\n", "value-invalid", "input", 2),
        ("libvirt_vcpus: {count: 2}\n", "value-invalid", "libvirt_vcpus", 2),
        ("libvirt_test: true\nverify: content\n", "value-conflict", "verify", 2),
        ("grub_fixes_enable: false\nno_grub: no\n", "value-conflict", "no_grub", 2),
        ("workdir: /w\nconversion_dir: /v\n", "value-conflict", "conversion_dir", 3),
        ("disk: /b.vmdk\n", "value-conflict", "vmdk", 2),
        ("input: /b.ova\n", "value-conflict", "ova", 2),
        ("cmd: ova\n", "value-conflict", "cmd", 2),
        ("cmd: azure\n", "value-invalid", "cmd", 2),
        ("cmd: loca\n", "value-invalid", "cmd", 2),
        ("flaten: true\n", "key-unknown", "flaten", 2),
        ("flaten: null\n", "key-unknown", "flaten", 2),
        ("to_output: /o/x.qcow2\noutput_dir: /p\n", "value-conflict", "to_output", 2),
        ("to_output: sub/x.qcow2\n", "value-invalid", "output_dir", 2),
        ("output_dir: ~alice/o\n", "value-invalid", "output_dir", 2),
        ("output_dir: ~/o\n", "value-invalid", "output_dir", 2),
    ],
)
def test_a_key_or_value_is_refused(lines: str, code: str, key: str, line: int) -> None:
    (one,) = refused(f"vmdk: /a.vmdk\n{lines}")
    assert (one.code, one.key, one.line) == (code, key, line)
    assert one.hint


@pytest.mark.parametrize(
    ("path", "found"), [("~", HOME), ("~/", HOME), ("~/a/b", HOME / "a/b"), ("~//etc/x", HOME / "etc/x")]
)
def test_a_tilde_is_the_home_directory(path: str, found: Path) -> None:
    assert read(f"output_dir: '{path}'\n", home=HOME)[0].output_dir == found


@pytest.mark.parametrize("command", OTHER_COMMANDS)
def test_a_command_that_is_refused_has_its_own_remedy(command: str) -> None:
    (one,) = refused(f"command: {command}\nvmdk: /a\n")
    assert (one.key, one.hint) == ("cmd", OTHER_COMMANDS[command])


@pytest.mark.parametrize("suffix", ["ova", "OVF", "vmx"])
def test_an_input_is_read_by_its_suffix(suffix: str) -> None:
    asked = only_migration(spec.parse(f"input: /a.{suffix}\n", default_name="web01"))
    assert asked.source_key == suffix.lower()


# ---------------------------------------------------------------- the table


def test_each_key_is_decided_once() -> None:
    keys = [key for row in ROWS for key in row.keys]
    assert len(keys) == len(set(keys))
    assert set(BY_KEY) & set(Migration.model_fields) == set(), "remove its row: the key is one of this program now"
    assert set(COMMANDS) & set(OTHER_COMMANDS) == set()
    assert {row.same_as for row in ROWS if row.same_as} - {"source"} <= set(Migration.model_fields)
    switched = {setting[0] for row in ROWS for setting in (row.when_true, row.when_false) if setting}
    assert switched <= set(Migration.model_fields)


def test_reasons_and_remedies_read_as_such() -> None:
    for row in ROWS:
        assert not row.text.endswith("."), row.keys
        if row.decision == "refused":
            assert row.text[0].isupper(), row.keys
        elif row.text:
            assert row.text[0].islower() or row.text[0] == "`" or row.text.startswith("Windows"), row.keys


def test_the_page_is_generated() -> None:
    assert PAGE.read_text() == markdown(), "run: make reference"
