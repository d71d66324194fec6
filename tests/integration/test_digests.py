"""The digests of a manifest, computed while the disks are copied."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from hyper2kvmd.disk.sources.digests import PIECE, DigestCheck
from hyper2kvmd.disk.sources.location import open_stored
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.mandate import ANYONE
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Checksum, DigestAlgorithm, FileRef, Image, LocalFile, StoredFile
from hyper2kvmd.model.orders import Limits
from hyper2kvmd.progress import Event, StepStarted
from hyper2kvmd.stages.plan import read_disks
from tests.support.archives import packed
from tests.support.benches import plan_for, unheard
from tests.support.converting import convert_planned, order_for
from tests.support.foreign_disks import make_raw
from tests.support.ova import Disk, as_zip, envelope, read_ova
from tests.support.service import until
from tests.support.vmdk import make as make_vmdk

MIB = 1 << 20


def found(at: FileRef) -> StoredFile:
    with open_stored(at) as file:
        return StoredFile(at=at, identity=file.identity)


def checksum(at: FileRef, data: bytes, algorithm: DigestAlgorithm = "sha256") -> Checksum:
    digest = hashlib.new(algorithm, data).hexdigest()
    return Checksum(of=found(at), algorithm=algorithm, digest=digest, manifest="web01.mf")


@pytest.fixture
def vmdk(tmp_path: Path) -> Path:
    raw = make_raw(tmp_path / "made.source", 9 * MIB, ((0, 2), (5, 1)))
    return make_vmdk(tmp_path, "streamOptimized", raw.read_bytes(), raw.stat().st_size)


def converted(vmdk: Path, *checksums: Checksum, bandwidth: int = 0, emit: Callable[[Event], None] = unheard) -> Image:
    (member,) = packed(vmdk.with_name("web01.ova"), vmdk)
    work = vmdk.with_name("work")
    work.mkdir(exist_ok=True)
    with Sources(work) as sources:
        disks, layout = read_disks(sources, [member])
    plan = plan_for(disks, layout)
    (disk,) = plan.machine.disks
    of_member = tuple(one.with_changes(of=found(member)) for one in checksums)
    plan = plan.with_changes(machine=plan.machine.with_changes(disks=(disk.with_changes(checksums=of_member),)))
    migration = Migration.model_validate({"ova": member.archive, "vm_name": "web01"})
    order = order_for(migration, work).with_changes(limits=Limits(bandwidth_limit=bandwidth))
    return convert_planned(plan, order, emit)


@pytest.mark.parametrize("has_digest", [True, False])
def test_a_comparison_is_shown_only_if_there_is_one(has_digest: bool, vmdk: Path) -> None:
    events: list[Event] = []
    sums = [checksum(LocalFile(path=vmdk), vmdk.read_bytes())] if has_digest else []
    converted(vmdk, *sums, emit=events.append)
    titles = [event.title for event in events if isinstance(event, StepStarted)]
    assert ("Comparing the source with its digests" in titles) is has_digest


@pytest.mark.parametrize("algorithm", get_args(DigestAlgorithm))
def test_a_member_as_its_manifest_says(vmdk: Path, algorithm: DigestAlgorithm) -> None:
    image = converted(vmdk, checksum(LocalFile(path=vmdk), vmdk.read_bytes(), algorithm))
    assert (
        image.evidence[0] == f"the {algorithm.upper()} of {vmdk.with_name('web01.ova')}/disk.vmdk is that of web01.mf"
    )


def test_one_other_bit_fails_the_conversion(vmdk: Path) -> None:
    """Also in bytes that no reader of the disk looks at."""
    data = bytearray(vmdk.read_bytes())
    data[-1] ^= 1
    with pytest.raises(MigrationFailed) as caught:
        converted(vmdk, checksum(LocalFile(path=vmdk), bytes(data)))
    assert (caught.value.code, caught.value.kind) == ("source-digest-differs", Kind.PERMANENT)
    assert f"{vmdk.with_name('web01.ova')}/disk.vmdk" in caught.value.message


def test_every_digest_of_a_file_has_to_match(vmdk: Path) -> None:
    data = vmdk.read_bytes()
    at = LocalFile(path=vmdk)
    assert len(converted(vmdk, checksum(at, data), checksum(at, data, "sha1")).evidence) > 2
    with pytest.raises(MigrationFailed) as caught:
        converted(vmdk, checksum(at, data), checksum(at, data + b"1", "sha1"))
    assert caught.value.code == "source-digest-differs"


def check_of(path: Path, *, data: bytes | None = None, bandwidth: int | None = None) -> DigestCheck:
    at = LocalFile(path=path)
    return DigestCheck([checksum(at, path.read_bytes() if data is None else data)], ANYONE, bandwidth)


def test_a_difference_is_known_before_the_copy_ends(tmp_path: Path) -> None:
    path = make_raw(tmp_path / "disk.raw", MIB, ((0, 1),))
    check = check_of(path, data=b"other")
    check.start()
    until("it has read the file", lambda: check.done == MIB)
    with pytest.raises(MigrationFailed) as caught:
        check.finish(lambda _done: None)
    with pytest.raises(MigrationFailed):
        check.require_no_failure()
    assert caught.value.code == "source-digest-differs"
    check.stop()


def test_a_file_that_changes_or_vanishes(tmp_path: Path) -> None:
    path = make_raw(tmp_path / "disk.raw", MIB, ((0, 1),))
    check = check_of(path)
    path.unlink()
    check.start()
    with pytest.raises(MigrationFailed) as caught:
        check.finish(lambda _done: None)
    assert caught.value.code == "source-missing"


def test_another_file_of_the_same_name_is_not_believed(tmp_path: Path) -> None:
    """Its bytes would match: but they are not those of the disk that was planned."""
    path = make_raw(tmp_path / "disk.raw", MIB, ((0, 1),))
    check = check_of(path)
    (tmp_path / "other").write_bytes(path.read_bytes())
    (tmp_path / "other").rename(path)
    check.start()
    with pytest.raises(MigrationFailed) as caught:
        check.finish(lambda _done: None)
    assert caught.value.code == "source-changed"


@pytest.mark.parametrize("damage", [b"\1", b"\2"])
def test_a_stored_member_of_a_zip_has_its_crc(tmp_path: Path, damage: bytes) -> None:
    """Without any manifest."""
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw")), "disk.raw": b"\1" * MIB}
    path = as_zip(tmp_path / "web01.ova", files)
    data = path.read_bytes()
    middle = data.index(files["disk.raw"]) + MIB // 2
    path.write_bytes(data[:middle] + damage + data[middle + 1 :])
    (disk,) = read_ova(path, tmp_path / "work").disks
    check = DigestCheck(disk.checksums, ANYONE)
    check.start()
    if damage == b"\1":
        check.finish(lambda _done: None)
        return
    with pytest.raises(MigrationFailed) as caught:
        check.finish(lambda _done: None)
    assert caught.value.code == "source-digest-differs"
    assert "its CRC32 is" in caught.value.message


def test_it_reads_no_faster_than_allowed_and_ends_when_it_is_told(tmp_path: Path) -> None:
    path = make_raw(tmp_path / "disk.raw", 8 * MIB, ((0, 8),))
    check = check_of(path, bandwidth=1)
    check.start()
    while not check.done:
        time.sleep(0.01)
    check.stop()
    assert check.done == PIECE, "one piece takes days"
    assert threading.active_count() == 1


def test_nothing_to_compare(tmp_path: Path) -> None:
    check = DigestCheck([], ANYONE)
    check.start()
    check.finish(lambda _done: None)
    check.stop()
