"""Archives of an attacker, and what a descriptor in them names."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.digests import DigestCheck
from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
from hyper2kvmd.host import space
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.host.person import Person
from hyper2kvmd.machines.archives import names, streams
from hyper2kvmd.machines.archives.tar import MAX_EXTENSION, MAX_EXTENSIONS
from hyper2kvmd.machines.ova import Ova
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import ArchiveMember
from hyper2kvmd.model.machine import Machine
from tests.support.archives import Entry, pax, tar
from tests.support.disks import sh
from tests.support.ova import FORMS, Disk, as_tar, as_zip, envelope, manifest, of_two_files, read_ova
from tests.support.own_host import FOLDER_PREFIX
from tests.support.submitters import VICTIM

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
OVF = envelope(Disk(MIB, "disk.raw"))
GOOD = (Entry("web01.ovf", OVF), Entry("disk.raw", b"\1" * MIB))
MALLORY = "games"
AWAY = "../../escaped"


def refused(folder: Path, data: bytes) -> str:
    (folder / "web01.ova").write_bytes(data)
    with pytest.raises(Failure) as caught:
        read_ova(folder / "web01.ova", folder / "work")
    return caught.value.code


NAMES = {
    "in the header": (Entry(AWAY, b"1"),),
    "in two fields": (Entry("escaped", b"1", prefix=b"../.."),),
    "of PAX": (pax([("path", AWAY)]), Entry("a", b"1")),
    "of GNU": (Entry("././@LongLink", AWAY.encode(), b"L"), Entry("a", b"1")),
    "absolute": (Entry("/var/tmp/h2k-escaped", b"1"),),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("entries", NAMES.values(), ids=NAMES)
def test_a_name_that_leads_out_of_the_archive(tmp_path: Path, entries: tuple[Entry, ...], packed: bool) -> None:
    data = tar(*entries, *GOOD)
    assert refused(tmp_path, gzip.compress(data) if packed else data) == "archive-unsafe"
    assert not (tmp_path / "work" / "escaped").exists()
    assert not Path("/var/tmp/h2k-escaped").exists()


def test_a_name_that_leads_out_of_a_zip(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "made", {AWAY: b"1", "web01.ovf": OVF, "disk.raw": b"1"})
    assert refused(tmp_path, path.read_bytes()) == "archive-unsafe"


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6"], ids=["hard link", "link", "device", "disk", "FIFO"])
def test_what_is_no_file(tmp_path: Path, kind: bytes) -> None:
    entries = (GOOD[0], Entry("disk.raw", kind=kind, link=b"/etc/shadow"))
    assert refused(tmp_path, tar(*entries)) == "archive-unsafe"
    assert refused(tmp_path, gzip.compress(tar(*entries))) == "archive-unsafe"


def test_two_files_of_one_name(tmp_path: Path) -> None:
    """The manifest would be compared with one of them, and the other one converted."""
    assert refused(tmp_path, tar(*GOOD, Entry("./disk.raw", b"\2" * MIB))) == "archive-unsafe"


def test_a_file_that_reaches_beyond_its_archive(tmp_path: Path) -> None:
    assert refused(tmp_path, tar(Entry("web01.ovf", OVF), Entry("disk.raw", size=1 << 40, base256=True))) == (
        "source-truncated"
    )


def test_a_member_that_reaches_beyond_an_archive_that_shrank(tmp_path: Path) -> None:
    archive = tmp_path / "web01.ova"
    archive.write_bytes(bytes(4096))
    with (
        pytest.raises(Failure) as caught,
        open_disk(ArchiveMember(archive=archive, member="a.raw", offset=512, length=1 << 40), tmp_path),
    ):
        pass
    assert caught.value.code == "source-truncated"


def test_two_disks_in_the_same_bytes(tmp_path: Path) -> None:
    archive = tmp_path / "web01.ova"
    archive.write_bytes(b"\1" * 8192)
    first = ArchiveMember(archive=archive, member="a.raw", offset=512, length=4096)
    second = first.with_changes(member="b.raw", offset=4096, length=2048)
    with Sources(tmp_path) as sources, pytest.raises(Failure) as caught:
        sources.open([first, second])
    assert caught.value.code == "source-repeated"


def test_headers_without_end(tmp_path: Path) -> None:
    assert refused(tmp_path, tar(*[pax([("comment", "x")])] * (MAX_EXTENSIONS + 1), *GOOD)) == "archive-too-large"


def test_a_header_of_a_gigabyte(tmp_path: Path) -> None:
    """It would be held in memory."""
    path = tmp_path / "web01.ova"
    path.write_bytes(tar(Entry("x", kind=b"x", size=1 << 30), end=b""))
    os.truncate(path, 1 << 31)
    with pytest.raises(Failure) as caught:
        read_ova(path, tmp_path / "work")
    assert caught.value.code == "archive-too-large"
    assert MAX_EXTENSION < 2 << 20


def test_files_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_FILES", 10)
    assert refused(tmp_path, tar(*(Entry(f"{number}", b"") for number in range(20)))) == "archive-too-large"


def test_a_small_file_that_becomes_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ALWAYS_ALLOWED", MIB)
    monkeypatch.setattr(streams, "MOST_RATIO", 100)
    data = gzip.compress(tar(GOOD[0], Entry("disk.raw", bytes(64 * MIB))))
    assert refused(tmp_path, data) == "archive-too-large"


def test_compressed_parts_without_end(tmp_path: Path) -> None:
    """Nothing is unpacked, so that no limit of the bytes is reached."""
    many = b"".join([zstd.compress(b"")] * (streams.MOST_PARTS + 1))
    assert refused(tmp_path, many) == "archive-too-large"
    assert refused(tmp_path, zstd.compress(tar(*GOOD)) + 2 * many) == "archive-too-large"


@pytest.mark.parametrize("names", [("a/b", "a"), ("a", "a/b"), ("a/b/c", "a/b")])
def test_a_file_with_the_name_of_a_directory(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = gzip.compress(tar(*(Entry(name, b"1") for name in names), *GOOD))
    assert refused(tmp_path, data) == "archive-unsafe"


def test_a_file_for_which_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "available", lambda _path, _reserve: MIB - 1)
    assert refused(tmp_path, gzip.compress(tar(*GOOD))) == "space-short"


def test_a_compressed_disk_for_which_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "available", lambda _path, _reserve: MIB - 1)
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw.gz", "gzip")), "disk.raw.gz": gzip.compress(bytes(MIB))}
    assert refused(tmp_path, as_tar(files)) == "space-short"


def test_another_descriptor_than_the_manifest_lists(tmp_path: Path) -> None:
    files = {"web01.ovf": OVF, "disk.raw": b"\1" * MIB}
    assert refused(tmp_path, as_tar({**files, "web01.ovf": OVF + b" ", "web01.mf": manifest(files)})) == (
        "source-digest-differs"
    )


def verify(machine: Machine) -> None:
    """As the conversion does."""
    check = DigestCheck([one for disk in machine.disks for one in disk.checksums], ANYONE)
    check.start()
    check.finish(lambda _done: None)


def test_other_content_than_the_manifest_lists(tmp_path: Path) -> None:
    """In a file of which only another file of the disk knows."""
    files = of_two_files(b"\1" * MIB)
    path = tmp_path / "web01.ova"
    FORMS["gzip"](path, {**files, "web01-flat.vmdk": b"\2" * MIB, "web01.mf": manifest(files)})
    with pytest.raises(Failure) as caught:
        verify(read_ova(path, tmp_path / "work"))
    assert caught.value.code == "source-digest-differs"


def test_the_file_that_the_manifest_lists_takes_the_place_of_another(tmp_path: Path) -> None:
    """The disk was unpacked already, from bytes that nobody signed."""
    good, bad = (gzip.compress(data * MIB) for data in (b"\1", b"\2"))
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw.gz", "gzip")), "disk.raw.gz": good}
    folder = tmp_path / "web01.ova"
    FORMS["directory"](folder, {**files, "disk.raw.gz": bad, "web01.mf": manifest(files)})
    machine = read_ova(folder, tmp_path / "work")
    (folder / "disk.raw.gz").write_bytes(good)
    with pytest.raises(Failure) as caught:
        verify(machine)
    assert caught.value.code == "source-changed"


@pytest.mark.parametrize("length", [MIB - 512, MIB + 512])
def test_a_part_that_shifts_the_next_ones(tmp_path: Path, length: int) -> None:
    files = {"web01.ovf": envelope(Disk(2 * MIB, "disk.raw", "", MIB, 2 * MIB)), "disk.raw.000000001": b"\2" * MIB}
    code = refused(tmp_path, as_tar({**files, "disk.raw.000000000": b"\1" * length}))
    assert code == ("source-truncated" if length < MIB else "source-corrupt")


# ---------------------------------------------------------------- the rights of the submitter


@pytest.fixture
def shared() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def put(path: Path, data: bytes, owner: int | str, mode: int = 0o644) -> Path:
    path.write_bytes(data)
    shutil.chown(path, owner)
    path.chmod(mode)
    return path


def read_for(person: str, ova: Path, work: Path, **wanted: object) -> Machine:
    """As a job that `person` submitted; the disks are opened as well."""
    with Sources(work, Mandate(Person.of(person_id(person)))) as sources:
        machine = Ova().read(Migration.model_validate({"ova": ova, "vm_name": "web01", **wanted}), sources)
        sources.open([disk.at for disk in machine.disks])
    return machine


def person_id(name: str) -> int:
    return int(sh("id", "-u", name))


def test_a_descriptor_that_names_a_file_of_another_user(shared: Path, tmp_path: Path) -> None:
    """Mallory's descriptor names a hard link to the victim's disk, and the victim submits it unread."""
    folder = shared / "export"
    folder.mkdir()
    shutil.chown(folder, MALLORY)
    put(folder / "web01.ovf", OVF, MALLORY)
    put(folder / "disk.raw", b"\1" * MIB, VICTIM)
    assert read_for(VICTIM, folder, tmp_path).disks
    (folder / "disk.raw").chmod(0o600)
    with pytest.raises(Failure) as caught:
        read_for(VICTIM, folder, tmp_path)
    assert caught.value.code == "named-file-not-readable"


def test_an_archive_that_the_submitter_may_not_read(shared: Path, tmp_path: Path) -> None:
    """Not even the names in it: without a descriptor, the message would list them."""
    ova = put(shared / "web01.ova", tar(*GOOD), MALLORY)
    assert read_for(VICTIM, ova, tmp_path).disks
    put(ova, tar(Entry("secret-project.vmdk", b"1")), MALLORY, 0o600)
    with pytest.raises(Failure) as caught:
        read_for(VICTIM, ova, tmp_path)
    assert caught.value.code == "submitter-may-not-read"


def test_certificates_that_the_submitter_may_not_read(shared: Path, tmp_path: Path) -> None:
    files = {"web01.ovf": OVF, "disk.raw": b"\1" * MIB}
    ova = put(shared / "web01.ova", as_tar({**files, "web01.mf": manifest(files), "web01.cert": b"x"}), MALLORY)
    ca = put(shared / "ca.pem", b"a secret", MALLORY, 0o600)
    with pytest.raises(Failure) as caught:
        read_for(VICTIM, ova, tmp_path, ova_ca=ca)
    assert caught.value.code == "submitter-may-not-read"


def test_a_directory_that_the_submitter_may_not_list(shared: Path, tmp_path: Path) -> None:
    folder = shared / "export"
    folder.mkdir()
    put(folder / "web01.ovf", OVF, MALLORY)
    put(folder / "disk.raw", b"\1" * MIB, MALLORY)
    assert read_for(VICTIM, folder, tmp_path).disks
    folder.chmod(0o711)
    with pytest.raises(Failure) as caught:
        read_for(VICTIM, folder, tmp_path)
    assert caught.value.code == "ova-descriptor-unclear"
    assert "web01.ovf" not in caught.value.message


def test_many_small_files_ask_for_space_together(tmp_path: Path) -> None:
    """The daemon looks at every file that is there before it answers."""
    path, asked = tmp_path / "web01.ova", list[int]()
    path.write_bytes(gzip.compress(tar(*GOOD, *(Entry(f"file{number}", b"1") for number in range(400)))))
    (tmp_path / "work").mkdir()
    with Sources(tmp_path / "work", ANYONE, lambda needed: asked.append(needed.conversion_bytes)) as sources:
        Ova().read(Migration(ova=path, vm_name="web01"), sources)
    assert len(asked) < 40
    assert asked == sorted(asked) and asked[-1] >= MIB + 400 * 4096
