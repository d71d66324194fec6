"""OVAs in every form: which machine they have, and where its disks are."""

from __future__ import annotations

import bz2
import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.location import open_stored
from hyper2kvmd.errors import Failure, MigrationFailed
from hyper2kvmd.host import space
from hyper2kvmd.machines.archives import streams
from hyper2kvmd.machines.archives.streams import Plain
from hyper2kvmd.machines.archives.unpacking import Unpacking
from hyper2kvmd.model.disks import ArchiveMember, DiskRef, EmptyDisk, LocalFile, UnpackedFile
from hyper2kvmd.model.machine import Machine
from tests.support.archives import Entry, tar
from tests.support.ova import COMPRESS, FORMS, Disk, as_tar, envelope, manifest, of_two_files, read_ova
from tests.support.sources import content

MIB = 1 << 20
DATA = content(1, MIB)
WEB01 = envelope(Disk(MIB, "web01-disk1.raw"))
FILES = {"web01.ovf": WEB01, "web01-disk1.raw": DATA}
KINDS = {
    "tar": ArchiveMember, "zip": ArchiveMember, "directory": LocalFile,
    "gzip": UnpackedFile, "xz": UnpackedFile, "zstd": UnpackedFile, "deflated": UnpackedFile,
}  # fmt: skip


def stored(at: DiskRef) -> bytes:
    assert not isinstance(at, EmptyDisk)
    with open_stored(at) as file:
        return file.read(0, file.size)


def make(folder: Path, files: dict[str, bytes], form: str = "tar") -> Path:
    FORMS[form](folder / "web01.ova", files)
    return folder / "web01.ova"


def machine_of(folder: Path, files: dict[str, bytes], form: str = "tar") -> Machine:
    return read_ova(make(folder, files, form), folder / "work")


def refusal(folder: Path, archive: bytes | Path, **wanted: object) -> Failure:
    path = archive if isinstance(archive, Path) else folder / "web01.ova"
    if isinstance(archive, bytes):
        path.write_bytes(archive)
    with pytest.raises(Failure) as caught:
        read_ova(path, folder / "work", **wanted)
    assert str(path) in caught.value.message
    assert caught.value.message.isprintable()
    return caught.value


def codes(machine: Machine) -> list[str]:
    return [concern.code for concern in machine.concerns]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_machine(tmp_path: Path, form: str) -> None:
    machine = machine_of(tmp_path, {**FILES, "web01.mf": manifest(FILES)}, form)
    (disk,) = machine.disks
    assert (machine.name, machine.memory, machine.vcpus) == ("web01", 1024, 2)
    assert isinstance(disk.at, KINDS[form])
    assert stored(disk.at) == DATA
    wanted = [(disk.at, "sha256", "web01.mf"), *([(disk.at, "crc32", "web01.ova")] if form == "zip" else [])]
    assert [(one.of.at, one.algorithm, one.manifest) for one in disk.checksums] == wanted
    assert not codes(machine)


@pytest.mark.parametrize("form", ["tar", "gzip", "zip"])
def test_a_suffix_in_capitals_and_files_of_a_mac(tmp_path: Path, form: str) -> None:
    files = {"./web01.OVF": WEB01, "._web01.OVF": b"mac", "web01-disk1.raw": DATA, "._web01-disk1.raw": b"mac"}
    assert stored(machine_of(tmp_path, files, form).disks[0].at) == DATA


@pytest.mark.parametrize("form", ["tar", "gzip", "deflated"])
def test_a_package_in_a_subdirectory_of_its_archive(tmp_path: Path, form: str) -> None:
    files = {f"export/{name}": data for name, data in {**FILES, "web01.mf": manifest(FILES)}.items()}
    machine = machine_of(tmp_path, files, form)
    assert stored(machine.disks[0].at) == DATA
    assert not codes(machine)


def test_a_disk_beside_a_descriptor_is_named_by_it(tmp_path: Path) -> None:
    (at,) = (disk.at for disk in machine_of(tmp_path, FILES, "directory").disks)
    assert isinstance(at, LocalFile)
    assert at.named_by is not None
    assert at.named_by.path == tmp_path / "web01.ova" / "web01.ovf"


def test_names_are_exact(tmp_path: Path) -> None:
    failure = refusal(tmp_path, as_tar({"web01.ovf": WEB01, "Web01-disk1.raw": DATA}))
    assert failure.code == "ova-file-missing"
    assert "'web01-disk1.raw', which is not there (files: web01.ovf, Web01-disk1.raw)" in failure.message


def test_an_empty_disk(tmp_path: Path) -> None:
    files = {"web01.ovf": envelope(Disk(MIB, "web01-disk1.raw"), Disk(5 * MIB)), "web01-disk1.raw": DATA}
    assert machine_of(tmp_path, files).disks[1].at == EmptyDisk(number=2, size=5 * MIB)


@pytest.mark.parametrize("form", ["tar", "gzip", "directory"])
@pytest.mark.parametrize(("packing", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_a_compressed_disk(tmp_path: Path, form: str, packing: str, pack: object) -> None:
    packed = pack(DATA)  # type: ignore[operator]
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw.gz", packing)), "disk.raw.gz": packed}
    machine = machine_of(tmp_path, {**files, "web01.mf": manifest(files)}, form)
    (disk,) = machine.disks
    assert isinstance(disk.at, UnpackedFile)
    assert disk.at.path.name == "disk.raw"
    assert stored(disk.at) == DATA
    assert str(disk.at).endswith("disk.raw.gz")
    assert [stored(one.of.at) for one in disk.checksums] == [packed], "the manifest is about the compressed file"


@pytest.mark.parametrize("form", ["tar", "gzip", "directory"])
@pytest.mark.parametrize("packing", ["", "gzip"])
def test_a_disk_in_parts(tmp_path: Path, form: str, packing: str) -> None:
    whole = gzip.compress(DATA) if packing else DATA
    size = -(-len(whole) // 3)
    parts = {f"disk.raw.{number:09}": whole[number * size :][:size] for number in range(3)}
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw", packing, size, len(whole))), **parts}
    machine = machine_of(tmp_path, {**files, "web01.mf": manifest(files)}, form)
    (disk,) = machine.disks
    assert isinstance(disk.at, UnpackedFile)
    assert disk.at.path.name == "disk.raw"
    assert stored(disk.at) == DATA
    assert [stored(one.of.at) for one in disk.checksums] == list(parts.values())


def test_a_missing_part_is_fatal(tmp_path: Path) -> None:
    parts = {f"disk.raw.{number:09}": DATA[:1024] for number in (0, 2)}
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw", "", 1024, 3072)), **parts}
    failure = refusal(tmp_path, as_tar(files))
    assert failure.code == "ova-file-missing"
    assert "disk.raw.000000001" in failure.message


@pytest.mark.parametrize(("number", "length"), [(0, 1023), (0, 1025), (1, 0), (2, 1023), (2, 1025)])
def test_a_part_of_another_size_would_shift_the_others(tmp_path: Path, number: int, length: int) -> None:
    parts = {f"disk.raw.{one:09}": DATA[: length if one == number else 1024] for one in range(3)}
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw", "", 1024, 3072)), **parts}
    failure = refusal(tmp_path, as_tar(files))
    assert failure.code == ("source-truncated" if length < 1024 else "source-corrupt")
    assert f"disk.raw.00000000{number} " in failure.message


def test_a_disk_that_has_lost_its_end(tmp_path: Path) -> None:
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw", size=MIB)), "disk.raw": DATA[:-512]}
    failure = refusal(tmp_path, as_tar(files))
    assert failure.code == "source-truncated"
    assert f"it has {MIB - 512} of the {MIB} bytes that web01.ovf states" in failure.message


def test_a_disk_of_which_more_is_there_than_stated(tmp_path: Path) -> None:
    """Some exporters count the bytes before a compression of the disk."""
    files = {"web01.ovf": envelope(Disk(MIB, "disk.raw", size=MIB - 512)), "disk.raw": DATA}
    assert stored(machine_of(tmp_path, files).disks[0].at) == DATA
    packed = {"web01.ovf": envelope(Disk(MIB, "disk.raw.gz", "gzip", size=2 * MIB)), "disk.raw.gz": gzip.compress(DATA)}
    assert stored(read_ova(make(tmp_path, packed), tmp_path / "work").disks[0].at) == DATA


def test_two_disks_of_one_packed_file_are_refused(tmp_path: Path) -> None:
    disk = Disk(MIB, "disk.raw.gz", "gzip")
    path = make(tmp_path, {"web01.ovf": envelope(disk, disk), "disk.raw.gz": gzip.compress(DATA)})
    assert refusal(tmp_path, path).code == "source-repeated"


@pytest.mark.parametrize("names", [(), ("a.ovf", "b.ovf")])
def test_one_descriptor_is_needed(tmp_path: Path, names: tuple[str, ...]) -> None:
    files = {"web01-disk1.raw": DATA, **dict.fromkeys(names, WEB01)}
    failure = refusal(tmp_path, as_tar(files))
    assert failure.code == "ova-descriptor-unclear"
    assert all(name in failure.message for name in files if name in names or not names)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "source-not-ova"),
        (b"KDMV" + bytes(2000), "source-not-ova"),
        (gzip.compress(DATA), "source-not-ova"),
        (WEB01, "source-not-ova"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, code: str) -> None:
    assert refusal(tmp_path, content).code == code


@pytest.mark.parametrize("form", ["gzip", "xz", "zstd"])
def test_a_compressed_archive_that_ends_too_early(tmp_path: Path, form: str) -> None:
    path = make(tmp_path, FILES, form)
    path.write_bytes(path.read_bytes()[: -len(DATA) // 8])
    assert refusal(tmp_path, path).code == "source-truncated"


@pytest.mark.parametrize("form", ["gzip", "xz", "zstd", "deflated"])
def test_a_damaged_compressed_archive(tmp_path: Path, form: str) -> None:
    path = make(tmp_path, FILES, form)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    data[len(data) // 2 + 1] ^= 0xFF
    path.write_bytes(data)
    assert refusal(tmp_path, path).code in ("source-corrupt", "source-truncated")


@pytest.mark.parametrize("form", ["gzip", "xz", "zstd"])
def test_compressed_data_in_several_parts(tmp_path: Path, form: str) -> None:
    """pigz, pixz and cat write several streams one after the other."""
    whole = as_tar(FILES)
    parts = [COMPRESS[form](data) for data in (whole[:700], whole[700:])]
    (tmp_path / "web01.ova").write_bytes(b"".join(parts) + bytes(1024))
    assert stored(read_ova(tmp_path / "web01.ova", tmp_path / "work").disks[0].at) == DATA


def test_short_parts_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of bgzip; each of them was read with the 256 KiB that follow it."""
    whole = as_tar(FILES)
    data = b"".join(COMPRESS["gzip"](whole[at : at + 8192]) for at in range(0, len(whole), 8192))
    given, read = 0, SourceFile.read

    def counting(file: SourceFile, offset: int, length: int) -> bytes:
        nonlocal given
        found = read(file, offset, length)
        given += len(found)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(SourceFile, "read", counting)
        (tmp_path / "web01.ova").write_bytes(data)
        machine = read_ova(tmp_path / "web01.ova", tmp_path / "work")
    assert stored(machine.disks[0].at) == DATA
    assert 0 < given < 2 * len(data)


@pytest.mark.parametrize("zeros", [0, 4090, 4096, (256 << 10) - 30, 600_000])
def test_zeros_between_parts_of_every_length(tmp_path: Path, zeros: int) -> None:
    whole = as_tar(FILES)
    (tmp_path / "web01.ova").write_bytes(gzip.compress(whole[:700]) + bytes(zeros) + gzip.compress(whole[700:]))
    assert stored(read_ova(tmp_path / "web01.ova", tmp_path / "work").disks[0].at) == DATA


def test_zeros_without_end_after_compressed_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_PADDING", MIB)
    assert refusal(tmp_path, gzip.compress(as_tar(FILES)) + bytes(2 * MIB)).code == "source-corrupt"


@pytest.mark.parametrize("href", ["...gz", "..gz"])
def test_a_compressed_disk_whose_name_is_a_suffix(tmp_path: Path, href: str) -> None:
    files = {"web01.ovf": envelope(Disk(MIB, href, "gzip")), href: gzip.compress(DATA)}
    with pytest.raises(MigrationFailed) as caught:
        machine_of(tmp_path, files)
    assert caught.value.code == "source-format-unclear"


def test_parts_of_a_disk_whose_name_is_a_suffix(tmp_path: Path) -> None:
    size = MIB // 2
    files = {"web01.ovf": envelope(Disk(MIB, "..", "", size, MIB))}
    parts = {f"...{number:09}": DATA[number * size :][:size] for number in range(2)}
    with pytest.raises(MigrationFailed) as caught:
        machine_of(tmp_path, {**files, **parts})
    assert caught.value.code == "source-format-unclear"


def test_other_data_after_compressed_data(tmp_path: Path) -> None:
    assert refusal(tmp_path, gzip.compress(as_tar(FILES)) + b"more").code == "source-corrupt"


def test_no_room_is_found_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "available", lambda _path, _reserve: MIB - 1)
    path = make(tmp_path, FILES, "gzip")
    with pytest.raises(Failure) as caught:
        read_ova(path, tmp_path / "work")
    assert caught.value.code == "space-short"
    assert [one.name for one in (tmp_path / "work").rglob("*") if one.is_file()] == ["web01.ovf"]


def test_what_an_earlier_attempt_unpacked_is_removed(tmp_path: Path) -> None:
    path = make(tmp_path, FILES, "gzip")
    read_ova(path, tmp_path / "work")
    stale = tmp_path / "work" / "unpacked" / "archive" / "stale.raw"
    stale.write_bytes(b"1")
    read_ova(path, tmp_path / "work")
    assert not stale.exists()


def test_zeros_are_unpacked_as_holes(tmp_path: Path) -> None:
    zeros = bytes(8 * MIB)
    files = {"web01.ovf": envelope(Disk(8 * MIB, "disk.raw")), "disk.raw": zeros}
    (disk,) = machine_of(tmp_path, files, "gzip").disks
    assert isinstance(disk.at, UnpackedFile)
    assert stored(disk.at) == zeros
    assert disk.at.path.stat().st_blocks < 100


def test_a_small_archive_that_unpacks_to_very_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ALWAYS_ALLOWED", MIB)
    monkeypatch.setattr(streams, "MOST_RATIO", 100)
    files = {"web01.ovf": WEB01, "web01-disk1.raw": bytes(64 * MIB)}
    assert refusal(tmp_path, gzip.compress(as_tar(files))).code == "archive-too-large"


def test_the_digest_of_the_descriptor_is_verified_before_it_is_read(tmp_path: Path) -> None:
    files = {**FILES, "web01.ovf": b"<not/>", "web01.mf": manifest(FILES)}
    assert refusal(tmp_path, as_tar(files)).code == "source-digest-differs"


def test_what_a_manifest_lacks_is_a_concern(tmp_path: Path) -> None:
    assert codes(machine_of(tmp_path, FILES)) == ["manifest-missing"]
    lines = manifest({"web01.ovf": WEB01}) + b"a line\n"
    machine = read_ova(make(tmp_path, {**FILES, "web01.mf": lines}), tmp_path / "work")
    assert codes(machine) == ["manifest-unclear", "manifest-incomplete"]
    assert "'a line'" in str(machine.concerns[0])
    assert "web01-disk1.raw" in str(machine.concerns[1])


@pytest.mark.parametrize("form", ["directory", "gzip"])
def test_a_manifest_covers_every_file_of_a_disk(tmp_path: Path, form: str) -> None:
    files = of_two_files(DATA)
    path = make(tmp_path, {**files, "web01.mf": manifest(files)}, form)
    machine = read_ova(path, tmp_path / "work")
    assert [str(one.of) for one in machine.disks[0].checksums] == [f"{path}/web01.vmdk", f"{path}/web01-flat.vmdk"]
    assert [stored(one.of.at) for one in machine.disks[0].checksums] == [files["web01.vmdk"], DATA]
    assert not codes(machine)


def test_a_manifest_without_the_content_of_a_disk_is_incomplete(tmp_path: Path) -> None:
    files = of_two_files(DATA)
    listed = {name: data for name, data in files.items() if name != "web01-flat.vmdk"}
    (concern,) = machine_of(tmp_path, {**files, "web01.mf": manifest(listed)}, "directory").concerns
    assert concern.code == "manifest-incomplete"
    assert "does not list web01-flat.vmdk:" in concern.message


def test_the_descriptor_of_a_zip_has_its_crc(tmp_path: Path) -> None:
    path = make(tmp_path, FILES, "zip")
    path.write_bytes(path.read_bytes().replace(b"<Info>a machine</Info>", b"<Info>A machine</Info>"))
    failure = refusal(tmp_path, path)
    assert failure.code == "source-digest-differs"
    assert "its CRC32 is" in failure.message


PACKED = {
    "gzip": {"web01.ovf": envelope(Disk(MIB, "disk.raw.gz", "gzip")), "disk.raw.gz": gzip.compress(DATA)},
    "parts": {
        "web01.ovf": envelope(Disk(MIB, "disk.raw", "", MIB // 2, MIB)),
        "disk.raw.000000000": DATA[: MIB // 2],
        "disk.raw.000000001": DATA[MIB // 2 :],
    },
}


@pytest.mark.parametrize("packing", PACKED)
def test_a_part_that_is_replaced_while_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    """The same bytes under the same name: but the file that was found is another one."""
    files = PACKED[packing]
    path = make(tmp_path, files, "directory")
    name = [*files][-1]
    of_disk = Unpacking.of_disk

    def replaced(own: Unpacking, *arguments: Any) -> UnpackedFile:
        (tmp_path / "other").write_bytes(files[name])
        (tmp_path / "other").rename(path / name)
        return of_disk(own, *arguments)

    monkeypatch.setattr(Unpacking, "of_disk", replaced)
    assert refusal(tmp_path, path).code == "source-changed"


def test_the_last_part_changes_while_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, PACKED["parts"], "directory")
    read = Plain.read

    def changing(stream: Plain, length: int) -> bytes:
        data = read(stream, length)
        if data == PACKED["parts"]["disk.raw.000000001"]:
            (path / "disk.raw.000000001").touch()
        return data

    monkeypatch.setattr(Plain, "read", changing)
    assert refusal(tmp_path, path).code == "source-changed"


def test_the_manifest_of_another_name_if_it_is_the_only_one(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, {**FILES, "export.MF": manifest(FILES)})
    assert machine.disks[0].checksums
    several = {**FILES, "export.mf": manifest(FILES), "other.mf": b"x", "web01.mf": manifest(FILES, "sha1")}
    machine = read_ova(make(tmp_path, several), tmp_path / "work")
    assert [one.algorithm for one in machine.disks[0].checksums] == ["sha1"]


def test_an_archive_that_changes_while_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, FILES, "gzip")
    read = SourceFile.read

    def changing(file: SourceFile, offset: int, length: int) -> bytes:
        path.touch()
        return read(file, offset, length)

    monkeypatch.setattr(SourceFile, "read", changing)
    assert refusal(tmp_path, path).code == "source-changed"


def test_a_directory_is_no_archive_of_old_tar(tmp_path: Path) -> None:
    """Old archives mark directories by the last character of their name."""
    entries = (Entry("export/", kind=b"\0"), *(Entry(f"export/{name}", data) for name, data in FILES.items()))
    (tmp_path / "web01.ova").write_bytes(tar(*entries))
    assert stored(read_ova(tmp_path / "web01.ova", tmp_path / "work").disks[0].at) == DATA


def test_the_working_folder_is_left_alone_by_a_plain_archive(tmp_path: Path) -> None:
    machine_of(tmp_path, FILES)
    assert not [*(tmp_path / "work").iterdir()]
    shutil.rmtree(tmp_path / "work")
