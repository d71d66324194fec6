"""The boot proof against real guests in a real emulator."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.boot import boot
from hyper2kvmd.model import Source
from hyper2kvmd.progress import Context, Event
from tests.guests.debian12 import Recipe, disk


def context(heard: list[Event]) -> Context:
    def admit(source: Source) -> None:
        raise AssertionError("a boot reserves no space")

    return Context(heard.append, admit)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_broken_guest_fails_and_says_where(tmp_path: Path) -> None:
    image = disk(Recipe())
    with pytest.raises(MigrationFailed) as caught:
        boot(image, "raw", firmware="bios", folder=tmp_path, ctx=context([]))
    assert caught.value.code == "boot-failed"
    assert "initramfs shell" in caught.value.message
    assert "/dev/sda1 does not exist" in caught.value.message
    assert "regen_initramfs" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_healthy_guest_reaches_its_login_and_its_image_stays_untouched(tmp_path: Path) -> None:
    image, heard = disk(Recipe(broken=False)), list[Event]()
    before = digest(image)
    booted = boot(image, "raw", firmware="bios", folder=tmp_path, ctx=context(heard))
    assert any("web01 asked for a login" in line for line in booted.evidence)
    assert any("Multi-User System" in line for line in booted.evidence)
    assert booted.failed_units == ()
    assert booted.seconds > 0
    assert "web01 login:" in booted.console_tail[-1]
    assert digest(image) == before
    assert list(tmp_path.iterdir()) == []
    assert [event.event for event in heard] == ["step-started"]


def test_a_uefi_guest_boots(tmp_path: Path) -> None:
    image = disk(Recipe(broken=False, firmware="uefi"))
    booted = boot(image, "raw", firmware="uefi", folder=tmp_path, ctx=context([]))
    assert any("web01 asked for a login" in line for line in booted.evidence)


def test_an_empty_disk_is_told_at_once(tmp_path: Path) -> None:
    image = tmp_path / "empty.raw"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(MigrationFailed) as caught:
        boot(image, "raw", firmware="bios", folder=tmp_path, ctx=context([]))
    assert caught.value.code == "boot-failed"
    assert "firmware found nothing to boot" in caught.value.message


def test_a_guest_without_a_serial_console_is_unproven_not_failed(tmp_path: Path) -> None:
    image = tmp_path / "mute.raw"
    endless_loop = b"\xeb\xfe"
    image.write_bytes((endless_loop.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    with pytest.raises(MigrationFailed) as caught:
        boot(image, "raw", firmware="bios", folder=tmp_path, ctx=context([]), silence_seconds=5.0)
    assert caught.value.code == "boot-unproven"
    assert "console=ttyS0" in caught.value.hint
