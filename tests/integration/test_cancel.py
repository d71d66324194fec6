"""A real worker ends by itself, and in order, when its job is cancelled in the middle of a stage."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from hyper2kvmd.client import Client
from hyper2kvmd.model.jobs import Stage, State
from tests.support.file_systems import file_system
from tests.support.host import MIB, USER
from tests.support.host import installed_helper as installed_helper
from tests.support.service import Service, running, until
from tests.support.small_guest import small_guest

LOOP = bytes.fromhex("ebfe").ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector that jumps to itself: QEMU would run it until the proof gives up."""
SLOW: Mapping[Stage, tuple[dict[str, object], int]] = {
    Stage.CONVERT: ({}, MIB),
    Stage.VERIFY: ({"verify": "boot"}, 0),
}
"""Keys of the migration, and the bandwidth of the daemon, with which a stage takes minutes."""
TRIES = 8
"""Jobs, of which one at least must be met in a step that takes a part of a second."""


@pytest.mark.parametrize("stage", SLOW)
def test_a_cancelled_job_ends_in_order(service_folder: Path, stage: Stage) -> None:
    keys, bandwidth = SLOW[stage]
    with running(service_folder, ("none",), bandwidth_limit=bandwidth) as service:
        source = service.sources / "loop.raw"
        source.write_bytes(LOOP.ljust(64 * MIB, b"x"))
        source.chmod(0o644)
        client = Client(service.socket)
        text = json.dumps({"vmdk": str(source), "vm_name": "loop", "guest": "none", **keys})
        number = client.submit_one(text, name="loop").id

        def busy() -> bool:
            assert client.job(number).state.active, client.job(number).problems
            return any(one.stage is stage and one.step for one in client.status().running)

        until(f"it is in {stage}", busy)
        answer = client.cancel(number)
        assert (answer.state, answer.stage, answer.cancelling) == (State.RUNNING, stage, True)
        until("it is cancelled", lambda: client.job(number).state is State.CANCELLED)
        assert "is killed" not in service.log.read_text()
        assert service.process is not None
        assert psutil.Process(service.process.pid).children(recursive=True) == []


@pytest.mark.parametrize(
    ("stage", "program", "mounted"),
    [
        (Stage.CONVERT, "qemu-storage-daemon", False),
        (Stage.REPAIR, "qemu-storage-daemon", False),
        (Stage.REPAIR, "qemu-storage-daemon", True),
        (Stage.REPAIR, "sudo", False),
    ],
)
def test_a_frozen_program_does_not_hold_a_cancelled_job(
    service_folder: Path, installed_helper: tuple[str, ...], stage: Stage, program: str, *, mounted: bool
) -> None:
    """The exporter of the comparison, that of the mounts (before and after the first mount), and the helper."""
    with running(service_folder, installed_helper) as service:
        image = small_guest(service.sources / "small.raw")
        image.disks[0].path.chmod(0o644)
        client = Client(service.socket)
        keys = {"vmdk": str(image.disks[0].path), "vm_name": "small"}
        number = client.submit_one(json.dumps(keys), name="small").id
        assert service.process is not None
        daemon = psutil.Process(service.process.pid)
        frozen = _freeze(daemon, client, number, stage, program, mounted=mounted)
        try:
            assert client.cancel(number).cancelling
            until("it is cancelled", lambda: client.job(number).state is State.CANCELLED)
        finally:
            for one in frozen:
                with suppress(psutil.Error):
                    one.resume()
        until("no process is left", lambda: not daemon.children(recursive=True))


def _freeze(
    daemon: psutil.Process, client: Client, number: int, stage: Stage, program: str, *, mounted: bool
) -> list[psutil.Process]:
    """Stop the program, with what it has started, as soon as the job has come to the stage.

    With `mounted`, when the helper has come and gone.
    """
    deadline, helped = time.monotonic() + 120, False
    while time.monotonic() < deadline:
        here = any(one.stage is stage for one in client.status().running)
        found = _by_name(daemon) if here else {}
        helped |= "sudo" in found
        if program in found and (not mounted or (helped and "sudo" not in found)):
            frozen = [found[program], *found[program].children(recursive=True)]
            for one in frozen:
                one.suspend()
            return frozen
        assert client.job(number).state.active, client.job(number).problems
    raise AssertionError(f"{program} was never seen in {stage}")


@pytest.mark.parametrize(
    ("step", "keys"), [("Computing the checksum", {"checksum": True}), ("Publishing", {})], ids=["digest", "copy"]
)
def test_a_frozen_worker_does_not_hold_its_cancelled_job(
    service_folder: Path, step: str, keys: Mapping[str, object]
) -> None:
    """While it computes a digest, and while it copies an image to another file system."""
    with file_system(service_folder, 400) as images:
        shutil.chown(images, USER, USER)
        with running(service_folder, ("none",), output_dir=images) as service:
            source = service.sources / "data.raw"
            source.write_bytes(os.urandom(64 * MIB))
            source.chmod(0o644)
            client = Client(service.socket)
            for attempt in range(TRIES):
                text = json.dumps({"vmdk": str(source), "vm_name": f"data{attempt}", "guest": "none", **keys})
                number = client.submit_one(text, name=f"data{attempt}").id
                if _frozen_in(service, client, number, step, images):
                    break
                (images / f"data{attempt}.qcow2").unlink()
            assert client.job(number).state is State.RUNNING, "no job was met in that step"
            assert client.cancel(number).cancelling
            until("it is cancelled", lambda: client.job(number).state is State.CANCELLED)
            assert "is killed" in service.log.read_text()
            until("its drafts are removed", lambda: not [*images.glob(f"*data{attempt}*")])


def _frozen_in(service: Service, client: Client, number: int, step: str, images: Path) -> bool:
    """Stop the worker as soon as its draft is there, in that step; False if the job has succeeded before."""
    assert service.process is not None
    daemon = psutil.Process(service.process.pid)
    while True:
        if [*images.glob(".*data*")]:
            workers = daemon.children()
            for worker in workers:
                worker.suspend()
            time.sleep(0.5)  # the daemon reads what they have said before
            if any(one.step.startswith(step) for one in client.status().running):
                return True
            for worker in workers:
                worker.resume()
        if not (job := client.job(number)).state.active:
            assert job.state is State.SUCCEEDED, job.problems
            return False


def _by_name(daemon: psutil.Process) -> dict[str, psutil.Process]:
    found = {}
    for process in daemon.children(recursive=True):
        with suppress(psutil.Error):
            found[process.name()] = process
    return found
