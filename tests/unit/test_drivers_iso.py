"""ISO 9660 images with drivers: their names in each form, and images that are damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.drivers.iso import SPACE_AT
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from tests.support.iso_image import FIRST, SECTOR, iso

FILES = {
    "virtio-win_license.txt": b"licence",
    "viostor/w10/amd64/viostor.inf": b"[Version]\n",
    "viostor/w10/amd64/viostor.sys": bytes(5000),
    "guest-agent/qemu-ga-x86_64.msi": b"agent",
    "empty": b"",
}


def source(tmp_path: Path, data: bytes) -> DriverSource:
    path = tmp_path / "virtio-win.iso"
    path.write_bytes(data)
    return DriverSource.open(path)


def refused(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(MigrationFailed) as caught:
        source(tmp_path, data)
    assert caught.value.code == "virtio-win-unreadable"
    assert str(tmp_path / "virtio-win.iso") in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(("rock_ridge", "joliet"), [(True, True), (True, False), (False, True)])
def test_names_and_contents(tmp_path: Path, rock_ridge: bool, joliet: bool) -> None:
    with source(tmp_path, iso(FILES, rock_ridge=rock_ridge, joliet=joliet)) as opened:
        assert opened.names == tuple(sorted(FILES))
        assert {name: opened.read(name) for name in opened.names} == FILES


def test_plain_names_are_found_in_any_case(tmp_path: Path) -> None:
    with source(tmp_path, iso(FILES, rock_ridge=False, joliet=False)) as opened:
        found = opened.find("viostor/W10/amd64/viostor.sys")
        assert found == "VIOSTOR/W10/AMD64/VIOSTOR.SYS"
        assert opened.read(found) == bytes(5000)
        assert opened.find("viostor/w10/x86/viostor.sys") is None


def test_a_file_that_is_larger_than_expected(tmp_path: Path) -> None:
    with source(tmp_path, iso(FILES)) as opened, pytest.raises(MigrationFailed) as caught:
        opened.read("viostor/w10/amd64/viostor.sys", 4096)
    assert "has 4.9 KiB, more than 4.0 KiB" in caught.value.message


def test_a_file_that_is_no_iso(tmp_path: Path) -> None:
    assert "not an ISO 9660 image" in refused(tmp_path, bytes(100 * SECTOR))
    assert "not an ISO 9660 image" in refused(tmp_path, b"")


def test_a_download_that_was_cut_off(tmp_path: Path) -> None:
    data = iso(FILES)
    assert "the image is truncated: it has 70.0 KiB of 72.0 KiB" in refused(tmp_path, data[:-SECTOR])
    assert "the image is truncated" in refused(tmp_path, data[: (FIRST + 1) * SECTOR])
    unstated = changed(data, 16 * SECTOR + SPACE_AT, bytes(8))
    assert "the image is incomplete" in refused(tmp_path, unstated[:-SECTOR])


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def record_of(data: bytes, name: bytes) -> int:
    """Where the directory entry with that Rock Ridge name begins."""
    field = data.index(b"NM" + bytes((5 + len(name), 1, 0)) + name)
    start = field - field % SECTOR
    while start + data[start] <= field:
        start += data[start]
    return start


def sector_of(data: bytes, at: int) -> bytes:
    return data[at + 2 : at + 6]


def stretched(data: bytes) -> bytes:
    """The last entry of the root directory ends behind its sector, of which it fills the rest."""
    last = at = FIRST * SECTOR
    while data[at]:
        last, at = at, at + data[at]
    moved = data[last:at]
    filler = data[FIRST * SECTOR : FIRST * SECTOR + data[FIRST * SECTOR]]
    while at + len(filler) < (FIRST + 1) * SECTOR - 40:
        data = changed(data, at, filler)
        at += len(filler)
    return changed(data, at, b"\xf0" + moved[1:40])


HARM: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a directory in itself": (
        lambda data: changed(data, record_of(data, b"viostor") + 2, struct.pack("<I", FIRST)),
        "is in itself or in two directories",
    ),
    "two directories in one place": (
        lambda data: changed(data, record_of(data, b"viostor") + 2, sector_of(data, record_of(data, b"guest-agent"))),
        "is in itself or in two directories",
    ),
    "a directory of a gigabyte": (
        lambda data: changed(data, record_of(data, b"viostor") + 10, struct.pack("<I", 1 << 30)),
        "its directories have more than 16777216 bytes",
    ),
    "a directory beyond the end": (
        lambda data: changed(data, record_of(data, b"viostor") + 2, struct.pack("<I", 1 << 20)),
        "is incomplete",
    ),
    "a file beyond the end": (
        lambda data: changed(data, record_of(data, b"empty") + 10, struct.pack("<I", 1 << 31)),
        "is incomplete: empty ends at",
    ),
    "an entry that is too short": (
        lambda data: changed(data, record_of(data, b"empty"), b"\x10"),
        "has a damaged entry",
    ),
    "an entry beyond its sector": (stretched, "has a damaged entry"),
    "a name that leads away": (
        lambda data: changed(data, data.index(b"NM\x0a\x01\0empty") + 5, b"../.."),
        "not a plain name",
    ),
    "a name of a control character": (
        lambda data: changed(data, data.index(b"NM\x0a\x01\0empty") + 5, b"\x1b[31m"),
        "not a plain name",
    ),
    "blocks of 512 bytes": (lambda data: changed(data, 16 * SECTOR + 128, struct.pack("<H", 512)), "blocks of 512"),
    "no file system": (lambda data: changed(data, 16 * SECTOR, b"\xff"), "no ISO 9660 file system"),
}


@pytest.mark.parametrize(("harm", "fact"), HARM.values(), ids=HARM)
def test_an_image_that_deceives(tmp_path: Path, harm: Callable[[bytes], bytes], fact: str) -> None:
    assert fact in refused(tmp_path, harm(iso(FILES, joliet=False)))


def test_directories_without_end(tmp_path: Path) -> None:
    assert "levels deep" in refused(tmp_path, iso({"/".join("d" * 20) + "/x": b""}))


def test_more_files_than_any_iso_of_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyper2kvmd.guest.windows.drivers.iso.MOST_FILES", 4)
    assert "more than 4 files" in refused(tmp_path, iso(FILES))


def test_more_directories_than_any_iso_of_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyper2kvmd.guest.windows.drivers.iso.MOST_DIRECTORIES", 4)
    assert "more than 4 directories" in refused(tmp_path, iso(FILES))


def test_links_and_packed_files_are_left_out(tmp_path: Path) -> None:
    data = iso(FILES, joliet=False)
    for signature in (b"SL", b"ZF"):
        at = data.index(b"NM\x0a\x01\0empty")
        with source(tmp_path, changed(data, at, signature)) as opened:
            assert opened.names == tuple(sorted(set(FILES) - {"empty"}))


def test_fields_that_continue_in_too_many_places(tmp_path: Path) -> None:
    """Each place has one field, which names the next place; the last one ends."""

    def more(at: int) -> bytes:
        return b"CE\x1c\x01" + struct.pack("<I4xI4xI4x", at // SECTOR, at % SECTOR, 28)

    chain = b"a place for the fields".ljust(1000)
    data = iso({"a-file-with-a-name-that-leaves-enough-room-for-another-field": chain}, joliet=False)
    start = data.index(chain)
    for number in range(20):
        data = changed(data, start + 28 * number, more(start + 28 * (number + 1)))
    at = data.index(b"NM", FIRST * SECTOR)
    assert "continue without end" in refused(tmp_path, changed(data, at, more(start)))
    with source(tmp_path, changed(data, at, more(start + 28 * 15))) as opened:
        assert opened.names == ("N0000000",)
