"""fstab: whatever stands in it, only first fields change, and a second repair changes nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyper2kvmd.guest.linux.compose import NEEDED
from tests.support.guest_on_disk import ROOT_UUID, SWAP_UUID, migration, put, repaired, simple_layout

SPECS = st.sampled_from(
    [
        "/dev/sda1",
        "/dev/sda5",
        "/dev/sdb1",
        "/dev/hda1",
        "/dev/sr0",
        "/dev/mapper/vg-lv",
        "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1",
        "/dev/disk/by-id/ata-x-part5",
        f"UUID={ROOT_UUID}",
        "LABEL=a\\040b",
        "tmpfs",
        "nas:/export",
        "#/dev/sda1",
    ]
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Z"]), max_size=12).filter(
    lambda word: word.rstrip("/") not in NEEDED
)
"""A file system that a repair needs would have to be mounted."""
GAPS = st.text(" \t", min_size=1, max_size=5)
INDENTS, ENDS = st.sampled_from(["", " ", "\t"]), st.sampled_from(["", "\r"])
LINES = st.one_of(
    st.tuples(st.sampled_from(["", " ", "\t"]), SPECS, GAPS, WORDS, GAPS, WORDS, st.sampled_from(["", "\r"])).map(
        "".join
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=30),
    st.sampled_from(["", "   ", "# /dev/sda1 / ext4", "/dev/sda1", "/dev/sda1\x0c/\x85ext4"]),
)


def mended(text: bytes, mode: str) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put(folder, "etc/fstab", text)
        (folder / "usr").mkdir()
        repaired({"partition 1": folder}, simple_layout(), migration(regen_initramfs=False, fstab_mode=mode))
        return (folder / "etc/fstab").read_bytes()


@settings(max_examples=150)
@given(st.lists(LINES, max_size=8).map("\n".join), st.sampled_from(["stabilize-all", "bypath-only"]))
def test_only_first_fields_change_and_a_second_repair_changes_nothing(text: str, mode: str) -> None:
    before = text.encode()
    after = mended(before, mode)
    assert mended(after, mode) == after
    old_lines, new_lines = before.split(b"\n"), after.split(b"\n")
    assert len(old_lines) == len(new_lines)
    for old, new in zip(old_lines, new_lines, strict=True):
        if old == new:
            continue
        spec = old.split()[0]
        assert spec.startswith(b"/dev/") and (mode == "stabilize-all" or spec.startswith(b"/dev/disk/by-path/"))
        start = old.index(spec)
        end = len(old) - start - len(spec)
        assert new[:start] == old[:start] and new[len(new) - end :] == old[len(old) - end :]
        assert new[start : len(new) - end] in (f"UUID={ROOT_UUID}".encode(), f"UUID={SWAP_UUID}".encode())


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_text_stay(text: bytes) -> None:
    assert mended(text, "noop") == text
    assert mended(b"# \xff\xfe\n" + text.replace(b"/dev", b""), "stabilize-all").startswith(b"# \xff\xfe\n")


@pytest.mark.parametrize("mode", ["stabilize-all", "bypath-only", "noop"])
def test_modes(mode: str) -> None:
    text = b"/dev/sda1 / ext4 defaults 0 1\n/dev/disk/by-path/pci-0-part5 none swap sw 0 0\n"
    root = f"UUID={ROOT_UUID}".encode() if mode == "stabilize-all" else b"/dev/sda1"
    swap = b"/dev/disk/by-path/pci-0-part5" if mode == "noop" else f"UUID={SWAP_UUID}".encode()
    assert mended(text, mode) == root + b" / ext4 defaults 0 1\n" + swap + b" none swap sw 0 0\n"


def test_root_that_cannot_be_resolved_is_the_root_that_was_found() -> None:
    assert mended(b"/dev/sdb1 / ext4 defaults 0 1\n", "stabilize-all").startswith(f"UUID={ROOT_UUID} /".encode())


def test_removable_media_are_left_silently(tmp_path: Path) -> None:
    put(tmp_path, "etc/fstab", "/dev/hdc /media/cdrom udf,iso9660 noauto 0 0\n/dev/fd0 /floppy auto noauto 0 0\n")
    (tmp_path / "usr").mkdir()
    guest = repaired({"partition 1": tmp_path}, simple_layout(), migration(regen_initramfs=False))
    assert guest.warnings == () and guest.changes == ()
