"""Files given as disks that are none: each is named as what it is, with a command that works, whatever its name is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.disk.sources.vmdk.descriptor import LIMIT
from hyper2kvmd.errors import Failure
from hyper2kvmd.model.disks import LocalFile
from tests.support.vmdk import full
from tests.support.vmdk_images import descriptor, stream

DISK = stream({0: full(65536), 9: full(65536)[::-1]}, 128 * 12)
SIZE = 1 << 20
"""Bytes of the files that have to be a whole number of sectors to be mistaken for a raw disk."""
OTHER_DISK = descriptor("monolithicFlat", 'RW 2048 FLAT "vm-101-disk-0" 0')
SNAPSHOT = stream(
    {},
    128 * 12,
    text=descriptor("monolithicSparse", 'RW 1536 SPARSE "own.vmdk"', parent=("1234abcd", "vm-101-disk-0")),
)


def tar(kind: int, *names: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(DISK)
            archive.addfile(member, io.BytesIO(DISK))
    return data.getvalue()


def old_tar() -> bytes:
    """Before POSIX: no magic number, and the sum of the bytes computed anew."""
    head = bytearray(tar(tarfile.USTAR_FORMAT, "web01-disk1.vmdk"))
    head[257:512] = bytes(255)
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head[:512]):06o}\0 ".encode()
    return bytes(head)


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, DISK)
    return data.getvalue()


def medium(start: bytes = b"", magic: bytes = b"\x01CD001\x01") -> bytes:
    return start.ljust(32768, b"\0") + magic


def mbr(
    data: bytes, *, state: int = 0x80, first: int = 64, sectors: int = 512, signature: bytes = b"\x55\xaa"
) -> bytes:
    """`data` with one partition in its first sector."""
    entry = struct.pack("<B3sB3sII", state, bytes(3), 0x83, bytes(3), first, sectors)
    return data[:446].ljust(446, b"\0") + entry + bytes(48) + signature + data[512:]


PACKED = {
    "OVA": tar(tarfile.USTAR_FORMAT, "web01.ovf", "web01-disk1.vmdk"),
    "tar archive": tar(tarfile.USTAR_FORMAT, "web01-disk1.vmdk"),
    "tar archive by GNU": tar(tarfile.GNU_FORMAT, "web01/web01.vmdk"),
    "tar archive with PAX headers": tar(tarfile.PAX_FORMAT, "w\u00e9b01.vmdk"),
    "tar archive of old": old_tar(),
    "gzip": gzip.compress(DISK),
    "xz": lzma.compress(DISK),
    "lzma": lzma.compress(DISK, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress(DISK),
    "bzip2 of nothing": bz2.compress(b""),
    "zstd": b"\x28\xb5\x2f\xfd\x04\x58\x11",
    "zstd with a frame to skip": b"\x50\x2a\x4d\x18\x04\0\0\0abcd",
    "lz4": b"\x04\x22\x4d\x18\x64\x40\xa7",
    "lz4 of the kernel": b"\x02\x21\x4c\x18",
    "lzop": b"\x89LZO\0\r\n\x1a\n",
    "lzip": b"LZIP\x01\x0c",
    "compress": b"\x1f\x9d\x90",
    "ZIP": zipped("web01.vmdk"),
    "ZIP of nothing": zipped(),
    "7-Zip": b"7z\xbc\xaf\x27\x1c\0\4",
    "RAR": b"Rar!\x1a\x07\x01\0",
    "RAR of old": b"Rar!\x1a\x07\0",
    "cpio": b"070701" + b"0" * 104 + b"web01.vmdk\0",
    "cpio with checksums": b"070702" + b"0" * 104 + b"web01.vmdk\0",
    "cpio of POSIX": b"070707" + b"0" * 70 + b"web01.vmdk\0",
    "cpio of old": struct.pack("<13H", 0o70707, 1, 2, 0o100644, 0, 0, 1, 0, 1, 2, 11, 0, 512) + b"web01.vmdk\0",
    "Debian package": b"!<arch>\ndebian-binary   ",
    "CAB": b"MSCF\0\0\0\0",
    "partclone": b"partclone-image0.2.89",
    "ntfsclone": b"\0ntfsclone-image\x0a",
    "Partimage": b"PaRtImAgE-VoLuMe",
    "FSArchiver": b"FsArCh_002",
    "Android": b"\x3a\xff\x26\xed\x01\0\0\0",
}
OTHERS = {
    "ISO 9660": medium(),
    "UDF": medium(magic=b"\0BEA01\x01"),
    "squashfs": b"hsqs\x01\0\0\0",
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "HTML": b"<!DOCTYPE html>\n<html><title>404",
    "HTML of old": b"\r\n <HTML><HEAD>",
    "an OVF": b'<?xml version="1.0" encoding="UTF-8"?>\n<!--made by hand-->\n<ovf:Envelope xmlns="http://x">',
    "an OVF without a declaration": b'\xef\xbb\xbf<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1">',
    "XML": b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code>',
    "XML in UTF-16": '<?xml version="1.0"?>'.encode("utf-16"),
    "JSON": b'{\n  "error": "expired"}',
    "manifest": b"SHA256(web01-disk1.vmdk)= 0123456789abcdef",
    "manifest by ovftool": b"SHA1 (web01.ovf) = 0123456789abcdef",
    ".vmx": b'.encoding = "UTF-8"\nconfig.version = "8"\n',
    ".vmx by hand": b'#!/usr/bin/vmware\nconfig.version = "8"\n',
    ".nvram": b"MRVN\x01\0\0\0",
    "ELF": b"\x7fELF\x02\x01\x01",
}
FORMATS = {
    "QED": b"QED\0",
    "Bochs": b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog",
    "cloop": b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0",
    "Parallels": b"WithouFreSpacExt",
    "DMG": bytes(SIZE - 512) + b"koly".ljust(512, b"\0"),
}
CODES = {
    **dict.fromkeys(PACKED, "source-packed"),
    **dict.fromkeys(OTHERS, "source-not-disk"),
    **dict.fromkeys(FORMATS, "source-unsupported"),
}
FILES = PACKED | OTHERS | FORMATS


def refused(path: Path) -> Failure:
    with pytest.raises(Failure) as caught, open_disk(LocalFile(path=path), path.parent):
        pass
    assert str(caught.value).isprintable()
    return caught.value


def concerns(path: Path) -> tuple[str, ...]:
    with open_disk(LocalFile(path=path), path.parent) as source:
        assert source.format == "raw" and source.virtual_size == path.stat().st_size
        return tuple(concern.message for concern in source.concerns)


def written(path: Path, data: bytes, size: int = SIZE) -> Path:
    path.write_bytes(data[:size].ljust(size, b"\0"))
    return path


@pytest.mark.parametrize("name", ["disk.raw", "disk.IMG", "disk.vmdk", "disk-flat.vmdk", "disk.qcow2", "disk"])
@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_no_disk_is_named_as_what_it_is(what: str, name: str, tmp_path: Path) -> None:
    failure = refused(written(tmp_path / name, FILES[what]))
    assert failure.code == CODES[what]
    word = what.partition(" of ")[0].partition(" by ")[0].partition(" with")[0].partition(" in ")[0]
    assert word.casefold() in failure.message.casefold()
    assert "rename" not in failure.hint.casefold()


@pytest.mark.parametrize("what", ["PDF", "JSON", "an OVF", "manifest", ".nvram"])
def test_also_a_file_of_less_than_a_sector(what: str, tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(FILES[what])
    assert refused(tmp_path / "disk.raw").code == "source-not-disk"


@pytest.mark.parametrize("name", ["disk 1.vmdk", "disk.vmdk.gz", "disk.raw"])
@pytest.mark.parametrize("what", ["gzip", "xz", "bzip2", "tar archive"])
def test_the_command_in_the_remedy_works(what: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[what])
    command = refused(path).hint.partition("(")[2].partition(")")[0]
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    unpacked = [one for one in tmp_path.iterdir() if one.name != name and one.suffix != ".ovf"]
    assert [one.read_bytes() for one in unpacked] == [DISK]


def test_the_remedy_for_an_ova_is_its_own_key(tmp_path: Path) -> None:
    path = written(tmp_path / "web01.vmdk", FILES["OVA"])
    assert "ova: instead of vmdk:" in refused(path).hint


@pytest.mark.parametrize("what", ["UDF", "squashfs"])
def test_the_remedy_for_a_data_disk_states_that_it_is_one(what: str, tmp_path: Path) -> None:
    path = written(tmp_path / "data 1.img", FILES[what])
    command = refused(path).hint.rpartition("result: ")[2]
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    with open_disk(LocalFile(path=tmp_path / "disk.qcow2"), tmp_path) as source:
        assert source.virtual_size == SIZE and source.concerns == ()


# ---------------------------------------------------------------- a disk all the same


@pytest.mark.parametrize("what", ["OVA", "gzip", "ELF", "squashfs", "ISO 9660"])
def test_a_valid_partition_table_makes_a_disk(what: str, tmp_path: Path) -> None:
    """Hybrid media are both; for the others nobody but a guest writes such bytes."""
    data = mbr(written(tmp_path / "file", FILES[what]).read_bytes())
    (warning,) = concerns(written(tmp_path / "disk.raw", data))
    assert "raw disk" in warning
    assert refused(written(tmp_path / "disk.iso", data)).code == CODES[what]


@pytest.mark.parametrize(
    "broken", [{"state": 0x7F}, {"first": SIZE // 512}, {"sectors": 0}, {"signature": b"\x55\xab"}], ids=str
)
def test_an_invalid_partition_table_makes_none(broken: dict[str, int], tmp_path: Path) -> None:
    data = mbr(written(tmp_path / "file", FILES["gzip"]).read_bytes(), **broken)  # type: ignore[arg-type]
    assert refused(written(tmp_path / "disk.raw", data)).code == "source-packed"


def test_a_disk_with_the_remains_of_a_medium(tmp_path: Path) -> None:
    """LVM, a file system or a boot loader begins before byte 32768, where a medium's descriptors are."""
    data = medium(bytes(512) + b"LABELONE")
    assert len(concerns(written(tmp_path / "disk.raw", data))) == 1
    assert refused(written(tmp_path / "disk.iso", data)).code == "source-not-disk"


@pytest.mark.parametrize(
    "data", [b"", b"some text of a guest", b"\xeb\x63\x90", b"XFSB", bytes(257) + b"ustat", b"07070"]
)
def test_any_other_content_is_a_raw_disk(data: bytes, tmp_path: Path) -> None:
    assert concerns(written(tmp_path / "disk.raw", data)) == ()


# ---------------------------------------------------------------- parts, and extents without their descriptor


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("disk.vmdk.000000000", "cat disk.vmdk.[0-9]* > disk.vmdk"),
        ("disk.vmdk.000000012", "cat disk.vmdk.[0-9]* > disk.vmdk"),
        ("web01.ova.001", "cat web01.ova.[0-9]* > web01.ova"),
        ("disk.img.aa", "cat disk.img.?? > disk.img"),
        ("disk.7z.part2", "cat disk.7z.part* > disk.7z"),
    ],
)
def test_a_part_of_a_split_file(name: str, command: str, tmp_path: Path) -> None:
    failure = refused(written(tmp_path / name, DISK, len(DISK) // 2))
    assert failure.code == "source-packed"
    assert command in failure.hint


@pytest.mark.parametrize("name", ["ubuntu-22.04.100", "web01.v12", "disk.vmdk.old"])
def test_a_name_with_a_number_is_no_part(name: str, tmp_path: Path) -> None:
    with open_disk(LocalFile(path=written(tmp_path / name, DISK, len(DISK))), tmp_path) as source:
        assert source.format == "vmdk"


@pytest.mark.parametrize("kind", ["flat", "rdm", "rdmp", "FLAT"])
def test_a_raw_extent_that_is_alone_is_read_as_a_raw_disk(kind: str, tmp_path: Path) -> None:
    (warning,) = concerns(written(tmp_path / f"web01-{kind}.vmdk", mbr(b"")))
    assert "web01.vmdk" in warning and "raw disk" in warning


@pytest.mark.parametrize("kind", ["flat", "rdm", "rdmp"])
def test_a_raw_extent_with_its_descriptor(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"web01-{kind}.vmdk", mbr(b""))
    (tmp_path / "web01.vmdk").write_bytes(descriptor("monolithicFlat", f'RW 2048 FLAT "web01-{kind}.vmdk" 0'))
    failure = refused(path)
    assert failure.code == "source-extent"
    assert "web01.vmdk" in failure.hint


@pytest.mark.parametrize("other", [lambda path: path.write_bytes(DISK), lambda path: path.mkdir(), Path.touch])
def test_a_file_with_the_name_of_the_descriptor(other: Callable[[Path], object], tmp_path: Path) -> None:
    other(tmp_path / "web01.vmdk")
    assert len(concerns(written(tmp_path / "web01-flat.vmdk", mbr(b"")))) == 1


def test_a_flat_extent_that_was_cut(tmp_path: Path) -> None:
    assert refused(written(tmp_path / "web01-flat.vmdk", mbr(b""), SIZE - 5)).code == "source-truncated"


@pytest.mark.parametrize("kind", ["flat", "rdm", "rdmp"])
def test_a_guest_cannot_choose_the_format_of_its_raw_extent(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"web01-{kind}.vmdk"
    assert refused(written(path, DISK)).code == "source-format-differs"
    assert refused(written(path, OTHER_DISK, LIMIT + 512)).code == "source-format-differs"


@pytest.mark.parametrize("content", [mbr(b""), DISK], ids=["raw", "a VMDK, as the guest wrote it"])
def test_one_extent_of_a_split_flat_disk(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "web01.vmdk").write_bytes(descriptor("twoGbMaxExtentFlat", 'RW 2048 FLAT "web01-f001.vmdk" 0'))
    failure = refused(written(tmp_path / "web01-f001.vmdk", content))
    assert failure.code == "source-extent"
    assert "web01.vmdk" in failure.hint


def test_such_an_extent_without_its_descriptor(tmp_path: Path) -> None:
    assert refused(written(tmp_path / "web01-f001.vmdk", mbr(b""))).code == "source-extent"
    assert refused(written(tmp_path / "web01-f002.vmdk", OTHER_DISK, LIMIT + 512)).code == "source-format-unclear"
    with open_disk(LocalFile(path=written(tmp_path / "web01-f003.vmdk", DISK, len(DISK))), tmp_path) as source:
        assert source.format == "vmdk"
        assert len(source.concerns) == 1


@pytest.mark.parametrize("name", ["node-f001", "db-rdm", "db-flat"])
def test_a_machine_with_the_name_of_an_extent(name: str, tmp_path: Path) -> None:
    written(tmp_path / f"{name}-flat.vmdk", mbr(b""))
    path = tmp_path / f"{name}.vmdk"
    path.write_bytes(descriptor("monolithicFlat", f'RW 2048 FLAT "{name}-flat.vmdk" 0'))
    with open_disk(LocalFile(path=path), tmp_path) as source:
        assert source.virtual_size == SIZE
        assert source.concerns == ()


# ---------------------------------------------------------------- names without a suffix


@pytest.mark.parametrize("name", ["vm-100-disk-0", "web01.v12"])
@pytest.mark.parametrize("content", [OTHER_DISK, SNAPSHOT], ids=["extents", "a parent"])
def test_a_guest_cannot_read_the_disks_beside_its_raw_disk(content: bytes, name: str, tmp_path: Path) -> None:
    written(tmp_path / "vm-101-disk-0", mbr(b""))
    failure = refused(written(tmp_path / name, content, len(content)))
    assert failure.code == "source-format-unclear"
    assert ".vmdk" in failure.hint and ".raw" in failure.hint


def test_another_vmdk_without_a_suffix_is_read_with_a_warning(tmp_path: Path) -> None:
    with open_disk(LocalFile(path=written(tmp_path / "web01", DISK, len(DISK))), tmp_path) as source:
        (warning,) = source.concerns
    assert "read as vmdk" in warning.message and "raw disk" in warning.hint
