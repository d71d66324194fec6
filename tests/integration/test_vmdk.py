"""Vetting: real VMDKs pass, those that reach for other files do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyper2kvmd.errors import Failure
from tests.support.disks import empty_disk, sh
from tests.support.vmdk import SUBFORMATS
from tests.support.vmdk_images import vmdk_source

SIZE = 3 << 30


def make_vmdk(folder: Path, subformat: str) -> Path:
    raw = empty_disk(folder / "raw", SIZE >> 20)
    with raw.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"data" * 1000)
    target = folder / "disk.vmdk"
    sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, target)
    raw.unlink()
    return target


def refused(path: Path, code: str) -> Failure:
    with pytest.raises(Failure) as caught, vmdk_source(path):
        pass
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_every_supported_subformat_is_seen_whole(subformat: str, tmp_path: Path) -> None:
    path = make_vmdk(tmp_path, subformat)
    with vmdk_source(path) as source:
        assert (source.subformat, source.virtual_size) == (subformat, SIZE)
        assert {file.path for file in source.files} == set(tmp_path.iterdir())
        source.require_unchanged()


def test_a_source_that_changes_is_noticed(tmp_path: Path) -> None:
    path = make_vmdk(tmp_path, "monolithicFlat")
    with vmdk_source(path) as source:
        with (tmp_path / "disk-flat.vmdk").open("r+b") as file:
            file.write(b"x")
        with pytest.raises(Failure) as caught:
            source.require_unchanged()
    assert caught.value.code == "source-changed"


@pytest.mark.parametrize(
    ("extent", "code"),
    [
        ('RW 2048 FLAT "/etc/shadow" 0', "source-unsafe"),
        ('RW 2048 FLAT "../secret" 0', "source-unsafe"),
        ('RW 2048 FLAT "sub/secret" 0', "source-unsafe"),
        ('RW 2048 FLAT "link.vmdk" 0', "source-unsafe"),
        ('RW 2048 FLAT "pipe" 0', "source-unsafe"),
        ('RW 2048 FLAT "disk.vmdk" 0', "source-unsafe"),
        ('RW 2048 FLAT "gone.vmdk" 0', "source-missing"),
        ('RW 2048 VMFSRDM "real.vmdk"', "source-unsupported"),
        ("RW 2048 FLAT", "source-unsupported"),
        ("", "source-not-vmdk"),
    ],
)
def test_a_descriptor_reaches_only_plain_files_beside_it(extent: str, code: str, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    (folder / "real.vmdk").write_bytes(bytes(1 << 20))
    (folder / "link.vmdk").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    path = folder / "disk.vmdk"
    path.write_text(f'# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n{extent}\n')
    refused(path, code)


def test_a_snapshot_asks_for_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "snap.vmdk"
    path.write_text(
        '# Disk DescriptorFile\nparentCID=12345678\nparentFileNameHint="/etc/shadow"\n'
        'createType="monolithicSparse"\nRW 2048 SPARSE "snap-s001.vmdk"\n'
    )
    refused(path, "source-parent-missing")


def test_a_sparse_file_with_an_embedded_flat_descriptor_is_refused(tmp_path: Path) -> None:
    path = make_vmdk(tmp_path, "monolithicSparse")
    data = bytearray(path.read_bytes())
    at = data.index(b"RW ")
    line = b'RW 2048 FLAT "/etc/shadow" 0\n'
    data[at : at + len(line)] = line
    path.write_bytes(data)
    refused(path, "source-unsafe")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "source-not-vmdk"),
        (b"KDMV", "source-not-vmdk"),
        (b"QFI\xfb" + bytes(600), "source-not-vmdk"),
        (b"KDMV" + b"\xff" * 600, "source-not-vmdk"),
        (b"# Disk DescriptorFile\n" + b"x=y\n" * 300_000, "source-not-vmdk"),
    ],
)
def test_what_is_no_vmdk_is_called_so(content: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(content)
    refused(path, code)


def test_missing_symlinked_and_special_sources(tmp_path: Path) -> None:
    refused(tmp_path / "none.vmdk", "source-missing")
    (tmp_path / "link.vmdk").symlink_to("/etc/passwd")
    refused(tmp_path / "link.vmdk", "source-unsafe")
    os.mkfifo(tmp_path / "fifo.vmdk")
    refused(tmp_path / "fifo.vmdk", "source-unsafe")
    refused(tmp_path, "source-unsafe")
