"""Machines that QEMU stops or cannot start: the boot proof does not blame the guest, and the tests' own are noticed."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.kvm import OPTIONS, Accelerator
from hyper2kvmd.model.disks import Image
from tests.guests.altered import boot_it
from tests.support.benches import hardware_for
from tests.support.boot_sectors import assembled, small
from tests.support.kernel import Kernel
from tests.system.emulator import Emulator, Stopped, emulating

FROM_VIDEO_MEMORY = """
.code16
movw $0xb800, %ax               # a return instruction becomes the first character on the screen
movw %ax, %ds
movb $0xcb, 0
lcall $0xb800, $0               # and is executed there
xorw %ax, %ax
movw %ax, %ds
movw $0x3f8, %dx
movw $text, %si
next:
lodsb
outb %al, %dx
testb %al, %al
jnz next
end:
hlt
jmp end
text:
.asciz "\\r\\nweb01 login: "
"""
"""KVM cannot execute instructions in a device's memory: QEMU stops the machine (`internal-error`). Emulation can."""
FILL_THE_DISK = """
.code16
xorw %ax, %ax
movw %ax, %ds
next:
movw $packet, %si
movw $0x4300, %ax
int $0x13                       # write 64 sectors
addl $64, sector
jmp next
packet:
.word 0x10, 64, 0x8000, 0
sector:
.quad 64
"""


def test_a_guest_in_which_kvm_fails_is_emulated(tmp_path: Path) -> None:
    """Also on a host without KVM, where QEMU does not even start."""
    booted = boot_it(small(tmp_path, assembled(FROM_VIDEO_MEMORY, tmp_path)), silence_seconds=30, accelerator="kvm")
    assert any("web01 asked for a login" in line for line in booted.evidence)
    assert any(line.endswith("by emulation") for line in booted.evidence)
    assert booted.kvm_failure in booted.evidence
    assert booted.kvm_failure is not None
    assert booted.kvm_failure.startswith("KVM failed in this guest, so it was emulated: QEMU ")
    assert "kvm" in booted.kvm_failure.partition(": ")[2].lower()
    assert Kernel.now().clean


@pytest.fixture
def two_megabytes(tmp_path: Path) -> Iterator[Path]:
    """A file system of that size."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "h2k-test", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_guest_that_fills_the_file_system_is_not_to_blame(tmp_path: Path, two_megabytes: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        boot_it(small(two_megabytes, assembled(FILL_THE_DISK, tmp_path)))
    assert caught.value.code == "disk-full"
    assert f"{two_megabytes}/proof is full" in caught.value.message


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_a_machine_that_qemu_does_not_have(accelerator: Accelerator, tmp_path: Path) -> None:
    """KVM is not blamed for it."""
    hardware = hardware_for("bios").with_changes(machine="pc-q35-1999")
    with pytest.raises(MigrationFailed) as caught:
        boot_it(small(tmp_path), hardware=hardware, accelerator=accelerator)
    assert caught.value.code == "emulator-ended"
    assert "QEMU exited with an error: " in caught.value.message and "unsupported machine" in caught.value.message


@contextmanager
def emulated(accelerator: Accelerator, image: Image, folder: Path) -> Iterator[Emulator]:
    """As the tests of a server start it, on `image`."""
    argv = ["qemu-system-x86_64", *OPTIONS[accelerator], "-display", "none"]
    argv += ["-drive", f"file={image.disks[0].path},format=raw,if=virtio"]
    with tempfile.TemporaryDirectory() as short, emulating(argv, Path(short, "monitor"), folder) as emulator:
        yield emulator


def look_for_a_minute(emulator: Emulator) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        emulator.require_running()
        time.sleep(0.2)


def seen_to_stop(emulator: Emulator) -> str:
    with pytest.raises(Stopped) as caught:
        look_for_a_minute(emulator)
    return str(caught.value)


def test_the_tests_notice_that_kvm_fails(tmp_path: Path) -> None:
    image = small(tmp_path, assembled(FROM_VIDEO_MEMORY, tmp_path))
    with emulated("kvm", image, tmp_path) as emulator:
        said = seen_to_stop(emulator)
    assert said.startswith("QEMU has ") and "kvm" in said.lower()


def test_the_tests_notice_that_qemu_ends_or_stops_its_machine(tmp_path: Path) -> None:
    image = small(tmp_path, assembled(FROM_VIDEO_MEMORY, tmp_path))
    with emulated("tcg", image, tmp_path) as emulator:
        deadline = time.monotonic() + 60
        while "web01 login" not in emulator.last_lines() and time.monotonic() < deadline:
            assert not emulator.has_ended()
            emulator.require_running()
        emulator.order("stop")
        assert "QEMU has stopped the machine (paused):" in (said := seen_to_stop(emulator))
        assert "web01 login" in said
        with pytest.raises(Stopped):
            emulator.wait(60)
        emulator.order("quit")
        emulator.process.wait(60)
        assert emulator.has_ended()
        assert "QEMU has ended (0):" in seen_to_stop(emulator)
