"""A stop of the service in the middle of a repair, and a QEMU that is killed in a boot proof: each job ends well."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hyper2kvmd.client import Client
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.jobs import Job, Stage, State
from tests.support.boot_sectors import SIZE, assembled
from tests.support.disks import sh
from tests.support.host import installed_helper as installed_helper
from tests.support.service import Service, running, until
from tests.support.small_guest import content_of, copy_of, small_guest

LOGIN = """
.code16
    xor %ax, %ax
    mov %ax, %ds
    mov $0x3f8, %dx
    mov $text, %si
next: lodsb
    test %al, %al
    jz stop
    out %al, %dx
    jmp next
stop: hlt
    jmp stop
text: .asciz "\\r\\nweb01 login: "
.org 510
.word 0xaa55
"""
"""A boot sector that asks for a login on the serial port."""
TRIES = 20
"""Jobs, of which one at least must be met while its guest is mounted writable: a matter of milliseconds."""


def _submit(service: Service, source: Path, name: str, **keys: object) -> int:
    source.chmod(0o644)
    text = json.dumps({"vmdk": str(source), "vm_name": name, **keys})
    return Client(service.socket).submit_one(text, name=name).id


def _below(service: Service, word: str) -> Iterator[psutil.Process]:
    """Processes of the daemon with this word in their command."""
    assert service.process is not None
    with suppress(psutil.Error):
        for one in psutil.Process(service.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if word in " ".join(one.cmdline()):
                    yield one


def test_a_killed_emulator_is_tried_again(service_folder: Path) -> None:
    with running(service_folder, ("none",), retry={"max_attempts": 3, "delay": 0.2, "backoff": 1}) as service:
        source = service.sources / "login.raw"
        source.write_bytes(assembled(LOGIN, service_folder).ljust(SIZE, b"\0"))
        number = _submit(service, source, "web01", guest="none", verify="boot")
        killed: list[int] = []

        def kill() -> bool:
            job = Client(service.socket).job(number)
            assert job.state.active, job.problems
            for emulator in _below(service, "restrict=on"):
                with suppress(ProcessLookupError):
                    os.kill(emulator.pid, signal.SIGKILL)
                    killed.append(emulator.pid)
            return bool(killed)

        until("the machine runs", kill)
        job = service.succeeded("web01")
        assert job.attempt == 2
        told = [event.message for event in service.events(job) if event.kind == "requeued"]
        assert len(told) == 1 and "tool-killed" in told[0], told
        assert list(_below(service, "")) == []
        assert service.working_folders() == set()


@dataclass(frozen=True)
class Met:
    """A worker that was frozen while its guest was mounted writable."""

    worker: psutil.Process
    image: Path


def _met_in_repair(service: Service, number: int) -> Met | None:
    """None if the job was over before. The device of a writable mount is there, and no helper any more."""
    client = Client(service.socket)
    while True:
        workers = list(_below(service, "hyper2kvmd.worker"))
        image = _mounted_writable(service.conversions)
        if workers and image is not None:
            workers[0].suspend()
            names = {one.name() for one in workers[0].children(recursive=True)}
            if _mounted_writable(service.conversions) == image and "sudo" not in names:
                return Met(workers[0], image)
            workers[0].resume()
        if not client.job(number).state.active:
            return None


def _mounted_writable(below: Path) -> Path | None:
    """The image in this directory below a loop device that can be written to."""
    for device in Path("/sys/block").glob("loop*"):
        with suppress(OSError):
            path = Path((device / "loop/backing_file").read_text().strip())
            if path.is_relative_to(below) and (device / "ro").read_text().strip() == "0":
                return path
    return None


@pytest.fixture
def guest(tmp_path: Path) -> Image:
    return small_guest(tmp_path / "guest.raw")


def _result(service: Service, job: Job, guest: Image) -> dict[str, tuple[int, bytes]]:
    assert job.state is State.SUCCEEDED, job.problems
    return content_of(guest, service.images / f"{job.vm_name}.raw")


def test_the_end_of_the_service_unmounts_a_guest(
    service_folder: Path, installed_helper: tuple[str, ...], guest: Image
) -> None:
    with running(service_folder, installed_helper) as service:
        source = service.sources / "guest.raw"
        copy_of(guest, source)
        for attempt in range(TRIES):
            number = _submit(service, source, f"met{attempt}", out_format="raw")
            met = _met_in_repair(service, number)
            if met is not None:
                break
        assert met is not None, "no job was met in its repair"
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        met.worker.resume()
        assert service.process.wait(60) == 0
        assert _mounted_writable(service.conversions) is None
        volume = f"{met.image}?offset={guest.layout.volumes[0].segments[0].offset}"
        assert "needs_recovery" not in sh("dumpe2fs", "-h", volume)
        sh("e2fsck", "-fn", volume)
        assert "is killed" not in service.log.read_text()

        service.start()
        job = service.succeeded(f"met{attempt}")
        stages = [event.message for event in service.events(job) if event.kind == "stage-finished"]
        assert sum(stage.startswith(Stage.PLAN) for stage in stages) == 1, stages
        _submit(service, source, "clean", out_format="raw")
        assert _result(service, job, guest) == _result(service, service.succeeded("clean"), guest)
