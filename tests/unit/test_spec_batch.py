"""Several machines in one file, and several files for one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd import spec
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.spec_batch import MAX_MACHINES, MAX_MERGED_NODES

FILES = Path(__file__).parents[1] / "hyper2kvm"
BASE = Path("/base")


def parse(text: str) -> tuple[spec.Parsed, ...]:
    return spec.parse(text, default_name="file")


def refused(text: str) -> list[tuple[str, str | None, int | None]]:
    return [(one.code, one.key, one.line) for one in problems(text)]


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(spec.Rejected) as caught:
        parse(text)
    return caught.value.problems


def test_each_machine_has_the_common_keys_under_its_own() -> None:
    machines = spec.load([FILES / "batch.yaml"], base=BASE)
    first, second, third = [machine.migration for machine in machines]
    assert [one.vm_name for one in (first, second, third)] == ["first", "two", "third"]
    assert {one.output_dir for one in (first, second, third)} == {BASE / "results"}
    assert [one.compress for one in (first, second, third)] == [True, False, True]
    assert second.vmdk == (BASE / "exports/two.vmdk", BASE / "exports/two-data.vmdk")
    noted = [" ".join(note.message.partition(" ha")[0] for note in machine.notes) for machine in machines]
    assert noted == ["flatten workers report", "flatten workers verbose", "flatten workers"]


def test_documents_are_machines_of_their_own() -> None:
    one, two, three = parse("vmdk: /a.vmdk\n---\n---\nvmdk: /b.vmdk\nvm_name: x\n---\nvms: [{ova: /c.ova}]\n")
    assert [machine.migration.vm_name for machine in (one, two, three)] == ["a", "x", "c"]


def test_one_document_is_named_after_its_file() -> None:
    assert [one.migration.vm_name for one in parse("---\nvmdk: /a.vmdk\n...\n")] == ["file"]
    assert [one.migration.vm_name for one in parse("vms: [{vmdk: /a.vmdk}]\n")] == ["a"]
    assert [one.migration.vm_name for one in parse("vmdk: /a.vmdk\nvms: null\n")] == ["file"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vms: []\n", [("value-invalid", "vms", 1)]),
        ("vms: web01\n", [("value-invalid", "vms", 1)]),
        ("vms:\n- /a.vmdk\n- vmdk: /b.vmdk\n", [("value-invalid", "vms", 2)]),
        ("vms:\n- vmdk: /a.vmdk\n  vms: []\n", [("value-conflict", "vms", 3)]),
        ("vmdk: /a\nvms:\n- ova: /b\n  vm_name: b\n", [("value-conflict", "ova", 3)]),
        ("vms:\n- vm_name: a\n- vmdk: /b.vmdk\n", [("key-missing", "vmdk", 2)]),
        ("vms:\n- vmdk: /my disk.vmdk\n", [("key-missing", "vm_name", 2)]),
        ("vms:\n- vmdk: /a/x.vmdk\n- vmdk: /b/x.vmdk\n", [("value-conflict", "vm_name", 3)]),
        ("vm_name: a\n---\nvmdk: /b\nvm_name: b\n", [("key-missing", "vmdk", 1)]),
        (
            "to_output: a.img\nvms:\n- {vmdk: /x, vm_name: x}\n- {vmdk: /y, vm_name: y}\n",
            [("value-conflict", "to_output", 4)],
        ),
    ],
)
def test_errors_have_the_place_of_their_machine(text: str, expected: list[tuple[str, str | None, int | None]]) -> None:
    assert refused(text) == expected


def test_an_error_in_the_common_keys_is_reported_once() -> None:
    text = "memory: much\nbanana: 1\nvcenter: x\nvms:\n- {vmdk: /a}\n- {vmdk: /b, memory: 512}\n- {vmdk: /c}\n"
    assert [line for *_, line in refused(text)] == [1, 2, 3]


def test_all_machines_or_none() -> None:
    assert refused("vms:\n- vmdk: /a.vmdk\n- vmdk: b.vmdk\n- vmdk: /c.vmdk\n  vcpus: 0\n") == [
        ("value-invalid", "vmdk", 3),
        ("value-invalid", "vcpus", 5),
    ]


def test_the_same_image_in_two_directories() -> None:
    text = "to_output: disk.img\nvms:\n- {vmdk: /a.vmdk, vm_name: a, output_dir: /a}\n- {vmdk: /b.vmdk, vm_name: b}\n"
    assert len(parse(text)) == 2


def test_the_work_of_one_file_is_limited() -> None:
    assert len(parse(listed(MAX_MACHINES))) == MAX_MACHINES
    assert refused(listed(MAX_MACHINES + 1)) == [("yaml-refused", "vms", 1)]
    common = "".join(f"k{number}: x\n" for number in range(MAX_MERGED_NODES // 200))
    assert refused(f"vms: [{{vmdk: /{'b' * 9}}}]\n" + common)[:1] == [("key-unknown", "k0", 2)]
    luks = ", ".join(f"/k{number}" for number in range(MAX_MERGED_NODES // MAX_MACHINES + 1))
    assert ("yaml-refused", "vms", 2) in refused(f"luks_keyfile: [{luks}]\n{listed(MAX_MACHINES)}")


def listed(count: int) -> str:
    return "vms: [" + ", ".join(f"{{vmdk: /{number}.vmdk}}" for number in range(count)) + "]\n"


# ---------------------------------------------------------------- several files


def test_later_files_override_earlier_ones() -> None:
    (one,) = spec.load([FILES / f"merge-{name}.yaml" for name in ("base", "override", "run")], base=BASE)
    asked = one.migration
    assert (asked.vmdk, asked.vm_name) == ((BASE / "exports/merged.vmdk",), "merge-run")
    assert (asked.conversion_dir, asked.output_dir) == (Path("/srv/fast"), BASE / "results")
    assert asked.checksum and not asked.regen_initramfs
    assert [note.message.partition(" has")[0] for note in one.notes] == ["verbose"]


def files(tmp_path: Path, *texts: str) -> list[Path]:
    paths = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def test_an_error_names_its_file(tmp_path: Path) -> None:
    paths = files(tmp_path, "memory: much\nvcpus: 0\n", "banana: 1\nvcpus: 1\n", "vmdk: a.vmdk\nmemory: [\n")
    with pytest.raises(spec.Rejected) as caught:
        spec.load(paths, base=BASE)
    assert [(one.file, one.line) for one in caught.value.problems] == [(str(paths[2]), 3)]
    paths[2].write_text("vmdk: a.vmdk\n")
    with pytest.raises(spec.Rejected) as caught:
        spec.load(paths, base=BASE)
    assert [(one.file, one.line, one.key) for one in caught.value.problems] == [
        (str(paths[0]), 1, "memory"),
        (str(paths[1]), 1, "banana"),
    ]
    with pytest.raises(spec.Rejected) as caught:
        spec.load(paths[1:2])
    assert [one.file for one in caught.value.problems] == [None, None]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_a_machine_is_named_after_the_file_that_names_its_source(tmp_path: Path, order: tuple[int, int, int]) -> None:
    texts = {"web01": "disk: /exports/a.vmdk\n", "overwrite": "overwrite: true\n", "empty": "ova: null\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    paths = [tmp_path / f"{tuple(texts)[number]}.yaml" for number in order]
    assert [machine.migration.vm_name for machine in spec.load(paths)] == ["web01"]


def test_common_keys_before_several_machines(tmp_path: Path) -> None:
    paths = files(
        tmp_path, "compress: true\n", "vmdk: /a.vmdk\n---\nvmdk: /b.vmdk\ncompress: false\n", "checksum: on\n"
    )
    machines = [machine.migration for machine in spec.load(paths)]
    assert [(one.vm_name, one.compress, one.checksum) for one in machines] == [("a", True, True), ("b", False, True)]


def test_two_files_with_several_documents_have_no_meaning(tmp_path: Path) -> None:
    two = "vmdk: /a.vmdk\n---\nvmdk: /b.vmdk\n"
    paths = files(tmp_path, two, two)
    with pytest.raises(spec.Rejected) as caught:
        spec.load(paths)
    assert [(one.file, one.line) for one in caught.value.problems] == [(str(paths[1]), 3)]
