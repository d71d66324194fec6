"""The scripts of targets: read by shellcheck, and those for QEMU really started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hyper2kvmd.model.machine import HardwareNic
from hyper2kvmd.proof.monitor import Monitor
from hyper2kvmd.targets.machine_files import NewMachine
from tests.support.house import until
from tests.support.new_machines import FORMS, MACHINES

HELLO = bytes.fromhex("ba f803 b0 48 ee b0 69 ee fa f4".replace(" ", ""))
"""A boot sector's program: it writes `Hi` to the first serial port and halts."""
SOCKET = "qmp"


def scripts(folder: Path) -> Iterator[Path]:
    for case, machine in MACHINES.items():
        for target, form in FORMS.items():
            for suffix, render in form.files.items():
                if suffix.endswith(".sh"):
                    path = folder / f"{case}-{target}.sh"
                    path.write_text(render(machine))
                    yield path


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    argv = ["shellcheck", "--shell=sh", "--enable=quote-safe-variables", *map(str, scripts(tmp_path))]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory whose name QEMU and the shell could misread."""
    place = tmp_path / "it's, a $(dir)"
    place.mkdir()
    return place


def placed(case: str, folder: Path) -> NewMachine:
    """A small machine of that kind on networks that every host has, with its script and empty images."""
    machine = MACHINES[case]
    nics = tuple(HardwareNic(mac=nic.mac) for nic in machine.hardware.nics)
    machine = replace(machine, hardware=machine.hardware.with_changes(memory=256, nics=nics))
    for disk in machine.disks:
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(folder / disk.path.name), "1M"]
        subprocess.run(argv, check=True)
    (folder / f"{machine.name}.sh").write_text(FORMS["qemu"].files[".sh"](machine))
    return machine


@contextmanager
def started(machine: NewMachine, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = ["sh", str(folder / f"{machine.name}.sh"), "-display", "none", *options]
    environment = {"PATH": os.environ["PATH"], "ACCEL": "tcg"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    with process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def said(folder: Path) -> str:
    return (folder / "log").read_text()


@contextmanager
def stopped(machine: NewMachine, folder: Path) -> Iterator[Monitor]:
    """The monitor of the machine before its first instruction."""
    with started(machine, folder, "-S", "-qmp", f"unix:{SOCKET},server=on,wait=off") as process:

        def connected() -> socket.socket | None:
            assert process.poll() is None, said(folder)
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(f"/proc/self/fd/{handle}/{SOCKET}")  # the whole path may be too long
            except OSError:
                connection.close()
                return None
            return connection

        handle = os.open(folder, os.O_PATH)
        try:
            with until(connected, "QEMU's monitor") as connection, Monitor(connection) as monitor:
                yield monitor
        finally:
            os.close(handle)


@pytest.mark.parametrize("case", MACHINES)
def test_qemu_has_the_machine(case: str, folder: Path) -> None:
    machine = placed(case, folder)
    with stopped(machine, folder) as monitor:
        assert monitor.ask("query-status")["running"] is False
        files = {device["inserted"]["file"] for device in monitor.ask("query-block") if "inserted" in device}
        assert {disk.path.name for disk in machine.disks} <= files
        assert len(monitor.ask("query-cpus-fast")) == machine.hardware.vcpus
        assert bool(monitor.ask("query-tpm")) == machine.hardware.tpm
        uuid = monitor.ask("query-uuid")["UUID"]
        assert machine.hardware.uuid in (uuid, None)


def test_the_boot_disk_is_booted(folder: Path) -> None:
    machine = placed("uefi-two-disks", folder)
    machine = replace(machine, hardware=machine.hardware.with_changes(firmware="bios"))
    (folder / f"{machine.name}.sh").write_text(FORMS["qemu"].files[".sh"](machine))
    raw = folder / "sector"
    raw.write_bytes(HELLO.ljust(510, b"\0") + b"\x55\xaa")
    argv = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", str(raw), str(folder / machine.disks[1].path.name)]
    subprocess.run(argv, check=True)
    with started(machine, folder) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"Hi", said(folder)


def test_uefi_variables_and_tpm_stay(folder: Path) -> None:
    machine = placed("secure-boot-tpm-three-cards", folder)
    variables, template = folder / "vault_VARS.fd", Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd").read_bytes()
    with started(machine, folder) as process:

        def written() -> bool:
            assert process.poll() is None, said(folder)
            return variables.exists() and variables.read_bytes() != template

        until(written, "the firmware starts and writes its variables")
    kept = variables.read_bytes()
    assert list((folder / "vault.tpm").glob("tpm2-*"))
    with stopped(machine, folder):
        assert variables.read_bytes() == kept
