"""The families of guests, as repair and the boot proof choose them, and what the boot proof needs of each."""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import get_args

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.choice import family_of
from hyper2kvmd.guest.family import OverlayDisks
from hyper2kvmd.guest.linux.boot_proof.serial import WORDS
from hyper2kvmd.guest.linux.family import Linux
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import FamilyName, Guest
from tests.support.guest_on_disk import FolderAccess, partition, put, simple_layout

LOGIN = struct.pack("<hxxi32s344x", 6, 471, b"tty1")
KERNEL_LINE = "linux /vmlinuz root=UUID=1234 ro quiet"


def overlays(root: Path, layout: Layout | None = None) -> OverlayDisks:
    access = FolderAccess({"partition 1": root})
    return OverlayDisks(layout or simple_layout(), lambda: nullcontext(access))


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    put(tmp_path, "etc/os-release", "ID=debian\n")
    put(tmp_path, "boot/grub/grub.cfg", f"{KERNEL_LINE}\n")
    put(tmp_path, "var/log/wtmp", LOGIN)
    (tmp_path / "usr").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", get_args(FamilyName))
def test_every_recorded_family_has_its_own_code(name: FamilyName) -> None:
    assert family_of(Guest(family=name)).name == name


def test_a_linux_guest_speaks_on_its_serial_console_and_earlier_logins_prove_nothing(linux: Path) -> None:
    prepared = Linux().prepare_boot(overlays(linux))
    assert (linux / "boot/grub/grub.cfg").read_text() == f"{KERNEL_LINE} {WORDS}\n"
    assert "(/boot/grub/grub.cfg)" in prepared.note
    assert prepared.new_traces() == ()
    put(linux, "var/log/wtmp", LOGIN * 2)
    assert prepared.new_traces() == ("its wtmp shows that logins were offered on tty1",)


def test_a_linux_guest_without_a_kernel_line_has_traces_all_the_same(linux: Path) -> None:
    put(linux, "boot/grub/grub.cfg", "configfile /elsewhere.cfg\n")
    prepared = Linux().prepare_boot(overlays(linux))
    assert "none was found that can be edited" in prepared.note
    put(linux, "var/log/wtmp", LOGIN * 2)
    assert prepared.new_traces() != ()


def test_overlays_without_a_linux_root_are_not_prepared(linux: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        Linux().prepare_boot(overlays(linux, Layout(tables=("dos",), volumes=(partition(1, "ntfs"),))))
    assert caught.value.code == "guest-root-missing"


def test_the_disks_of_unknown_guests_are_not_opened() -> None:
    def refuse() -> AbstractContextManager[Access]:
        raise AssertionError("nothing is to be read or written")

    prepared = family_of(Guest(family="none")).prepare_boot(OverlayDisks(simple_layout(), refuse))
    assert "booted unchanged" in prepared.note
    assert prepared.new_traces() == ()
    assert prepared.power_off_proves and prepared.patience is None


def test_overlays_without_a_windows_are_not_prepared(linux: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        family_of(Guest(family="windows")).prepare_boot(overlays(linux))
    assert caught.value.code == "windows-root-missing"
