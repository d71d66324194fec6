"""The key `ovf`: a descriptor with files beside it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd import spec
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import EmptyDisk, LocalFile, UnpackedFile
from hyper2kvmd.model.machine import Machine
from tests.support.ovf_texts import FILE, System, collection, controller, cpu, disk, envelope, memory
from tests.support.parsed import only_migration
from tests.support.vmdk_images import descriptor

DISK = descriptor("monolithicFlat", "RW 1 ZERO")


@pytest.fixture
def ovf(tmp_path: Path) -> Path:
    (tmp_path / "web01-disk1.vmdk").write_bytes(DISK)
    return put(tmp_path, envelope())


def put(folder: Path, text: bytes) -> Path:
    path = folder / "web01.ovf"
    path.write_bytes(text)
    return path


def machine_of(ovf: Path, **asked: object) -> Machine:
    migration = Migration(ovf=ovf, vm_name="new").with_changes(**asked)
    with Sources(ovf.parent) as sources:
        machine = read_machine(migration, sources)
        if not any(isinstance(one.at, EmptyDisk) for one in machine.disks):
            sources.open([one.at for one in machine.disks])
        return machine


def refusal(ovf: Path, **asked: object) -> Failure:
    with pytest.raises(Failure) as refused:
        machine_of(ovf, **asked)
    return refused.value


def files_of(machine: Machine) -> list[str]:
    return [one.at.path.name for one in machine.disks if isinstance(one.at, LocalFile)]


def test_a_machine_with_its_disk(ovf: Path) -> None:
    machine = machine_of(ovf)
    (found,) = machine.disks
    assert isinstance(found.at, LocalFile) and found.at.named_by is not None
    assert found.at.path == ovf.with_name("web01-disk1.vmdk")
    assert (found.at.named_by.path, found.at.named_by.uid) == (ovf, ovf.stat().st_uid)
    assert (machine.name, machine.vcpus, machine.memory, found.capacity) == ("web01", 2, 2048, 16 << 30)


@pytest.mark.parametrize(
    ("href", "name"),
    [("a%24b.vmdk", "a$b.vmdk"), ("a%24b.vmdk", "a%24b.vmdk"), ("%E7%A3%81.vmdk", "磁.vmdk"), ("./a.vmdk", "a.vmdk")],
)
def test_the_names_of_files(tmp_path: Path, href: str, name: str) -> None:
    (tmp_path / name).write_bytes(DISK)
    assert files_of(machine_of(put(tmp_path, envelope(files=[{**FILE, "href": href}])))) == [name]


def test_the_suffix_in_any_case(ovf: Path) -> None:
    assert files_of(machine_of(ovf.rename(ovf.with_name("WEB01.OVF")))) == ["web01-disk1.vmdk"]


def test_a_missing_disk_is_named(tmp_path: Path) -> None:
    error = refusal(put(tmp_path, envelope()))
    assert error.code == "ova-file-missing" and "web01-disk1.vmdk" in error.message


def test_another_case_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "WEB01-DISK1.VMDK").write_bytes(DISK)
    assert refusal(put(tmp_path, envelope())).code == "ova-file-missing"


def test_a_missing_descriptor_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "web01.ovf").code == "source-missing"


def test_a_descriptor_that_is_too_large(tmp_path: Path) -> None:
    path = put(tmp_path, b"<a>")
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    assert refusal(path).code == "ovf-too-complex"


def test_an_empty_disk(tmp_path: Path) -> None:
    path = put(tmp_path, envelope(disks=[{"diskId": "d1", "capacity": "1024"}]))
    assert machine_of(path).disks[0].at == EmptyDisk(number=1, size=1024)


def test_what_the_migration_gives_may_be_unclear(ovf: Path) -> None:
    put(ovf.parent, envelope(System((cpu("0"), memory("0"), controller("3"), disk("4")))))
    assert refusal(ovf, memory=4096).code == refusal(ovf, vcpus=2).code == "ovf-value-unclear"
    machine = machine_of(ovf, memory=4096, vcpus=2)
    assert (machine.memory, machine.vcpus) == (None, None)


def test_vm_name_chooses_the_machine(ovf: Path) -> None:
    other = System((cpu("7"), memory(), controller("3"), disk("4")), id="db01")
    put(ovf.parent, envelope(collection("1", System(), other)))
    assert machine_of(ovf, vm_name="db01").vcpus == 7
    assert refusal(ovf, vm_name="db02").code == "ovf-system-unclear"


@pytest.mark.parametrize("source", ["ovf", "ova"])
def test_the_keys_of_a_migration(source: str) -> None:
    text = f"{source}: /exports/web01\nconfiguration: small\n"
    migration = only_migration(spec.parse(text, default_name="web01"))
    assert (migration.source_key, migration.configuration) == (source, "small")


def test_a_configuration_of_disks_is_refused() -> None:
    with pytest.raises(spec.Rejected) as refused:
        spec.parse("vmdk: /exports/web01.vmdk\nconfiguration: small\n", default_name="web01")
    (problem,) = refused.value.problems
    assert (problem.code, problem.key) == ("value-conflict", "configuration")


def test_a_configuration_that_does_not_exist(ovf: Path) -> None:
    assert refusal(ovf, configuration="small").code == "ovf-configuration-unclear"


# ---------------------------------------------------------------- packed disks


def unpacked(ovf: Path) -> bytes:
    """The file of the only disk, after it was unpacked."""
    with Sources(ovf.parent) as sources:
        (found,) = read_machine(Migration(ovf=ovf, vm_name="new"), sources).disks
        assert isinstance(found.at, UnpackedFile)
        return found.at.path.read_bytes()


@pytest.mark.parametrize(("compression", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_a_compressed_disk(ovf: Path, compression: str, pack: Callable[[bytes], bytes]) -> None:
    (ovf.parent / "web01-disk1.vmdk").write_bytes(pack(DISK))
    put(ovf.parent, envelope(files=[{**FILE, "compression": compression}]))
    assert unpacked(ovf) == DISK


def in_parts(folder: Path, data: bytes) -> dict[str, str]:
    """The attributes of a file of which each part has 100 bytes."""
    (folder / "web01-disk1.vmdk").unlink()
    for number in range(0, len(data), 100):
        (folder / f"web01-disk1.vmdk.{number // 100:09d}").write_bytes(data[number : number + 100])
    return {**FILE, "chunkSize": "100", "size": str(len(data))}


def test_a_disk_in_parts(ovf: Path) -> None:
    put(ovf.parent, envelope(files=[in_parts(ovf.parent, DISK)]))
    assert unpacked(ovf) == DISK


def test_a_compressed_disk_in_parts(ovf: Path) -> None:
    put(ovf.parent, envelope(files=[{**in_parts(ovf.parent, gzip.compress(DISK)), "compression": "gzip"}]))
    assert unpacked(ovf) == DISK


def test_a_missing_part_is_named(ovf: Path) -> None:
    put(ovf.parent, envelope(files=[in_parts(ovf.parent, DISK)]))
    (ovf.parent / "web01-disk1.vmdk.000000001").unlink()
    assert "'web01-disk1.vmdk.000000001'" in refusal(ovf).message


# ---------------------------------------------------------------- manifests


def manifest_line(path: Path) -> str:
    return f"SHA256({path.name})= {hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_a_manifest_beside_the_descriptor(ovf: Path) -> None:
    disk_file = ovf.with_name("web01-disk1.vmdk")
    ovf.with_suffix(".mf").write_text(manifest_line(ovf) + manifest_line(disk_file))
    machine = machine_of(ovf)
    assert [one.digest for one in machine.disks[0].checksums] == [hashlib.sha256(DISK).hexdigest()]
    assert not machine.concerns
    ovf.write_bytes(ovf.read_bytes() + b"\n")
    assert refusal(ovf).code == "source-digest-differs"


def test_the_manifest_of_another_machine_is_not_used(ovf: Path) -> None:
    ovf.with_name("db01.ovf").write_bytes(b"")
    ovf.with_name("db01.mf").write_text("SHA256(web01.ovf)= " + "0" * 64 + "\n")
    assert machine_of(ovf).disks[0].checksums == ()


# ---------------------------------------------------------------- deltas


def delta(hint: str, cid: str = "fffffffe") -> bytes:
    return descriptor("monolithicFlat", "RW 1 ZERO", parent=(cid, hint))


def delta_of(folder: Path, child: bytes) -> Path:
    (folder / "base.vmdk").write_bytes(DISK)
    (folder / "delta.vmdk").write_bytes(child)
    disks = [{"diskId": "d1", "fileRef": "f1", "parentRef": "d2"}, {"diskId": "d2", "fileRef": "f2"}]
    files = [{"id_": "f1", "href": "delta.vmdk"}, {"id_": "f2", "href": "base.vmdk"}]
    return put(folder, envelope(disks=disks, files=files))


def test_a_delta_that_names_its_parent_is_read_with_it(tmp_path: Path) -> None:
    ovf = delta_of(tmp_path, delta("base.vmdk"))
    with Sources(tmp_path) as sources:
        machine = read_machine(Migration(ovf=ovf, vm_name="new"), sources)
        (source,) = sources.open([one.at for one in machine.disks])
        assert [file.path.name for file in source.identity] == ["delta.vmdk", "base.vmdk"]


@pytest.mark.parametrize("child", [DISK, delta("other.vmdk"), b"KDMV", b""])
def test_a_delta_that_does_not_name_its_parent_is_refused(tmp_path: Path, child: bytes) -> None:
    error = refusal(delta_of(tmp_path, child))
    assert error.code == "ovf-disk-unsupported" and "delta.vmdk does not name base.vmdk" in error.message


def test_a_delta_of_a_changed_parent_is_refused(tmp_path: Path) -> None:
    assert refusal(delta_of(tmp_path, delta("base.vmdk", cid="12345678"))).code == "source-parent-differs"


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    ovf = delta_of(tmp_path, delta("base.vmdk"))
    (tmp_path / "base.vmdk").unlink()
    assert "base.vmdk" in refusal(ovf).message
