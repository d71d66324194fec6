"""The JSON Schema accepts what the parser accepts, and refuses what is wrong in a single value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from hyper2kvmd import config, spec
from hyper2kvmd.cli import ctl
from hyper2kvmd.cli.output import Output
from hyper2kvmd.cli.schema import NAMES, write
from hyper2kvmd.errors import Failure
from hyper2kvmd.manual import Name
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.yaml_schema import schema

PROJECT = Path(__file__).parents[2]
EXAMPLES = sorted(PROJECT.glob("examples/*.yaml"))
OF_HYPER2KVM = sorted(PROJECT.glob("tests/hyper2kvm/*.yaml"))


@cache
def validator(name: Name) -> Draft202012Validator:
    return Draft202012Validator(schema(name))


def faults(name: Name, text: str) -> list[str]:
    found = [error for one in yaml.safe_load_all(text) for error in validator(name).iter_errors(one)]
    return [f"{error.json_path}: {error.message}" for error in found]


def parses(text: str) -> bool:
    try:
        spec.parse(text, base=Path("/here"), home=Path("/home/me"), default_name="web01")
    except Failure:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_schema(name: Name) -> None:
    Draft202012Validator.check_schema(schema(name))


def test_the_pages_of_the_reference_are_current(tmp_path: Path) -> None:
    write(tmp_path)
    for name in NAMES:
        page = f"{name}.schema.json"
        assert (PROJECT / "docs/reference" / page).read_text() == (tmp_path / page).read_text(), "run `make reference`"


@pytest.mark.parametrize("name", NAMES)
def test_the_command_prints_it(name: Name) -> None:
    for words in (["schema", name], ["schema", name, "--json"]):
        result = CliRunner().invoke(ctl.cli, words, obj=Output())
        assert json.loads(result.output) == schema(name)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_the_schema_and_is_accepted_by_it(path: Path) -> None:
    found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert found is not None
    assert json.loads((path.parent / found[1]).read_text()) == schema("migration")
    assert faults("migration", path.read_text()) == []


@pytest.mark.parametrize("path", OF_HYPER2KVM, ids=lambda path: path.stem)
def test_a_file_of_hyper2kvm_is_accepted_if_the_parser_accepts_it(path: Path) -> None:
    if parses(path.read_text()):
        assert faults("migration", path.read_text()) == []


def strings_of_tests() -> Iterator[str]:
    """The YAML texts in the tests of the parser."""
    for name in ("test_spec.py", "test_spec_batch.py", "test_spec_vmx.py"):
        for text in re.findall(r'"((?:[^"\\\n]|\\.)*)"', (PROJECT / "tests/unit" / name).read_text()):
            plain = text.encode().decode("unicode_escape")
            yield plain if "vmdk" in plain else f"vmdk: /a\n{plain}\n"


def test_what_the_parser_accepts_in_its_tests_is_accepted() -> None:
    texts = [text for text in dict.fromkeys(strings_of_tests()) if ":" in text and parses(text)]
    assert len(texts) > 50
    refused = {text: found for text in texts if _loads(text) and (found := faults("migration", text))}
    assert refused == {}


def _loads(text: str) -> bool:
    """Whether the tests' YAML library reads it as the parser does, with keys that JSON can have."""
    try:
        roots = list(yaml.safe_load_all(text))
        json.dumps(roots)
    except (yaml.YAMLError, ValueError, TypeError):
        return False
    return all(isinstance(root, dict | None) for root in roots)


@pytest.mark.parametrize("name", NAMES)
def test_the_description_of_a_key_is_that_of_the_manual(name: Name) -> None:
    found = schema(name)
    properties = found["$defs"]["machine"]["properties"] if name == "migration" else found["properties"]
    own = [key for key in properties if name == "configuration" or key in Migration.model_fields]
    assert [
        key for key in own if "description" not in properties[key] and properties[key].get("type") != "object"
    ] == []


BAD_VALUES = (
    *("vmkd: /a", "vmdk: {a: b}", "vm_name: -x", "vm_name: [a]", "out_format: vhd", "compress: maybe", "compress: 2"),
    *(
        "compress_level: 0",
        "compress_level: 10",
        "compress_level: 1.5",
        "compress_level: many",
        "resize: 50",
        "memory: 63",
    ),
    *("resize: [50]", "resize: 50GB", "memory: 4GB", "memory: 16777217", "memory: 1.5", "memory: lots"),
    *(
        "vcpus: 0",
        "hooks: {during: x}",
        "hooks: {before: [a/b]}",
        "hooks: x",
        "win_net: static",
        "win_net: [{mac: x, address: y}]",
    ),
    *("win_net: [{address: 192.0.2.1/24}]", "network_map: [a]", "datastore_map: {a/b: /x}", "to_output: a b.qcow2"),
    *("libvirt_uri: esx://x/", "libvirt_pool: -a", "target: esxi", "priority: 10", "vms: []", "vms: [x]"),
    *(
        "vms: [{vms: []}]",
        "vms: [{memory: 4GB}]",
        "luks_keyfile: [[a]]",
        "machine: Q_35",
        "verify: [boot]",
        "azure: true",
    ),
)


@pytest.mark.parametrize("line", BAD_VALUES)
def test_a_bad_value_is_refused_by_both(line: str) -> None:
    text = line if line.startswith(("vmdk", "vms")) else f"vmdk: /a\n{line}\n"
    assert not parses(text)
    assert faults("migration", text)


@pytest.mark.parametrize(
    ("line", "fine"),
    [
        ("bandwidth_limit: 200M", True),
        ("bandwidth-limit: 5", True),
        ("bandwidth_limit: 200MB", False),
        ("space_reserve: 5%", True),
        ("space_reserve: 50G", True),
        ("space_reserve: 5 GB", False),
        ("helper: [sudo, -n, /x]", True),
        ("helper: /run/x.sock", True),
        ("helper: {a: b}", False),
        ("virtio_win: null", True),
        ("retry: {max-attempts: 3}", True),
        ("retry: {max_attempts: 0}", False),
        ("max_concurrent_jobs: 65", False),
        ("max_per_source: 2", True),
        ("max_per_source: 0", False),
        ("max_per_source: [1]", False),
        ("max_per_source: {/mnt/nfs: 1, default: 4}", True),
        ("max_per_source: {/mnt/nfs: 65}", False),
        ("max_per_source: {nfs: 1}", False),
        ("log_level: loud", False),
        ("hooks: {cmdb: /x}", True),
        ("hooks: {a b: /x}", False),
        ("allowed_source_dirs: /srv", False),
        ("banana: 1", False),
    ],
)
def test_the_configuration(line: str, fine: bool, tmp_path: Path) -> None:
    path = tmp_path / "hyper2kvmd.yaml"
    path.write_text(line)
    try:
        config.load(path)
    except Failure:
        assert not fine
    else:
        assert fine
    assert (faults("configuration", line) == []) == fine


def test_the_packaged_configuration_is_accepted() -> None:
    text = re.sub(r"^#(?!#)", "", (PROJECT / "packaging/hyper2kvmd.yaml").read_text(), flags=re.MULTILINE)
    assert faults("configuration", text) == []
