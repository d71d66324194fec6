"""The boot proof with an emulator that lives but does not run its machine: QEMU's end of both pipes is played here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.choice import family_of
from hyper2kvmd.guest.family import BootedUnchanged
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.host.kvm import Accelerator
from hyper2kvmd.model.disks import DiskImage, Image, Layout
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.progress import Context
from hyper2kvmd.proof.boot import CameUp, KvmFailed, Trial, watch
from hyper2kvmd.proof.machine import RunningMachine
from tests.support.benches import admit_nothing, hardware_for, unheard
from tests.support.qmp import asking, line

WORDS = """KVM internal error. Suberror: 1
extra data[0]: 0x0000000000000001
emulation\a failure
RAX=0000000000000000 RBX=0000000000000021
R8 =0000000000000000 R9 =0000000000000000
Code=50 7c 08 00 <f0> 48 0f c7 0f
"""
LIVING = (
    f"import sys, time; sys.stderr.write({WORDS!r}); sys.stderr.flush(); print('Booting', flush=True); time.sleep(60)"
)


@contextmanager
def machine(state: object, accelerator: Accelerator) -> Iterator[RunningMachine]:
    def answers(command: str, number: object) -> bytes:
        return line({"return": {"status": state} if command == "query-status" else [], "id": number})

    with asking(answers) as monitor:
        argv = [sys.executable, "-c", LIVING]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                yield RunningMachine(process, monitor, accelerator)
            finally:
                process.kill()


def watched(state: object, accelerator: Accelerator, folder: Path) -> CameUp | None:
    image = Image(disks=(DiskImage(path=folder, virtual_size=1, file_bytes=0),), format="raw", layout=Layout(tables=()))
    guest, helper, ctx = Guest(family="none"), Helper(("false",)), Context(unheard, admit_nothing)
    trial = Trial(image, family_of(guest), hardware_for("bios"), helper, folder, ctx, (), None, silence_seconds=3.0)
    with machine(state, accelerator) as running:
        while (said := running.read_console(10)) is not None and b"Booting" not in said:
            pass
        return watch(trial, running, time.monotonic(), BootedUnchanged("it is not there"))


def test_kvm_that_fails_in_a_guest_is_not_the_guests_failure(tmp_path: Path) -> None:
    with pytest.raises(KvmFailed) as caught:
        watched("internal-error", "kvm", tmp_path)
    said = "KVM internal error. Suberror: 1 / emulation failure"
    assert str(caught.value) == f"QEMU stopped the machine (internal-error): {said}"


@pytest.mark.parametrize("state", ["internal-error", "paused", "guest-panicked", "a later QEMU's"])
def test_an_emulator_that_stops_the_machine_is_named_with_its_words(state: str, tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        watched(state, "tcg", tmp_path)
    assert caught.value.code == "emulator-ended"
    assert f"QEMU stopped the machine ({state}): KVM internal error" in caught.value.message


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_a_full_file_system_is_named(accelerator: Accelerator, tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        watched("io-error", accelerator, tmp_path)
    assert caught.value.code == "disk-full" and str(tmp_path) in caught.value.message


@pytest.mark.parametrize("state", ["running", "suspended", "shutdown"])
def test_a_machine_that_goes_on_is_watched_until_it_is_idle(state: str, tmp_path: Path) -> None:
    came_up = watched(state, "kvm", tmp_path)
    assert came_up is not None and not came_up.heard


def test_a_state_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        watched(7, "kvm", tmp_path)
    assert caught.value.code == "emulator-failed"
