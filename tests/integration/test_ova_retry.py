"""Further attempts of a job whose disks were unpacked: what is unpacked again, and the space that it asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hyper2kvmd.errors import TryLater
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.orders import SpaceNeeded
from hyper2kvmd.model.results import FIELDS
from hyper2kvmd.progress import (
    AwaitingRecord,
    AwaitingSpace,
    Context,
    Ended,
    StageFinished,
    StageStarted,
    read_event,
)
from hyper2kvmd.worker import plan_only
from tests.support.attempts import MIB, Attempts
from tests.support.benches import unheard
from tests.support.ova import FORMS, Disk, envelope
from tests.support.sources import content

SIZE = 3 * MIB
DATA = content(1, SIZE)


@pytest.fixture
def job(tmp_path: Path) -> Attempts:
    """A job for a compressed OVA with one disk."""
    made = Attempts(tmp_path)
    ova = tmp_path / "web01.ova"
    FORMS["gzip"](ova, {"web01.ovf": envelope(Disk(SIZE, "web01-disk1.raw")), "web01-disk1.raw": DATA})
    migration = Migration(ova=ova, vm_name="web01", out_format="raw", guest="none", verify="content")
    made.order = made.order.with_changes(migration=migration)
    return made


def attempt(job: Attempts, kill_at: Stage | None = None, *, finished: bool = False) -> tuple[list[Stage], Ended | None]:
    """A worker process of the daemon, killed when it starts the stage `kill_at`, or has finished it."""
    argv = [sys.executable, "-m", "hyper2kvmd.worker"]
    stages: list[Stage] = []
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        print(job.order.model_dump_json(), file=worker.stdin, flush=True)
        for line in worker.stdout:
            event = read_event(line)
            if isinstance(event, StageStarted):
                stages.append(event.stage)
            elif isinstance(event, StageFinished):
                done = job.order.finished.with_changes(**{FIELDS[type(event.product)]: event.product})
                job.order = job.order.with_changes(finished=done)
            elif isinstance(event, AwaitingSpace):
                print("go", file=worker.stdin, flush=True)
            elif isinstance(event, AwaitingRecord):
                print("recorded", file=worker.stdin, flush=True)
            elif isinstance(event, Ended):
                return stages, event
            if isinstance(event, StageFinished if finished else StageStarted) and event.stage is kill_at:
                worker.kill()
                return stages, None
    raise AssertionError("the worker ended without its last event")


def test_a_worker_that_is_killed_after_the_plan_unpacks_again(job: Attempts) -> None:
    attempt(job, Stage.PLAN, finished=True)
    stale = job.folder / "unpacked" / "archive" / "stale.raw"
    stale.write_bytes(b"1")
    stages, ended = attempt(job)
    assert ended is not None and ended.outcome == "succeeded", ended
    assert stages == list(Stage)
    assert job.result.read_bytes() == DATA
    assert not job.folder.exists()


def test_a_worker_that_is_killed_during_the_repair_goes_on_with_what_is_unpacked(job: Attempts) -> None:
    attempt(job, Stage.REPAIR)
    unpacked = job.folder / "unpacked" / "archive" / "web01-disk1.raw"
    before = unpacked.stat()
    attempt(job, Stage.VERIFY)
    assert unpacked.stat() == before
    stages, ended = attempt(job)
    assert ended is not None and ended.outcome == "succeeded", ended
    assert stages == [Stage.VERIFY, Stage.PUBLISH, Stage.REGISTER]
    assert job.result.read_bytes() == DATA


def test_a_job_that_failed_goes_on_with_what_is_unpacked(job: Attempts) -> None:
    job.fail_to_publish()
    assert job.run() == ([Stage.PUBLISH, Stage.REGISTER], "")
    assert job.result.read_bytes() == DATA


@pytest.mark.parametrize("lost", ["changed", "removed"])
def test_what_is_unpacked_is_unpacked_again_if_it_is_no_more_what_it_was(job: Attempts, lost: str) -> None:
    job.fail_to_publish()
    unpacked = job.folder / "unpacked" / "archive" / "web01-disk1.raw"
    if lost == "changed":
        unpacked.write_bytes(bytes(SIZE))
    else:
        unpacked.unlink()
    assert job.run() == (list(Stage), "")
    assert job.result.read_bytes() == DATA


def test_space_is_asked_for_before_each_file_and_for_all_at_the_end(job: Attempts) -> None:
    assert job.run() == (list(Stage), "")
    descriptor, disk, everything = (one.conversion_bytes for one in job.admitted)
    assert 0 < descriptor <= 64 << 10
    assert SIZE < disk <= SIZE + (64 << 10)
    planned = job.order.finished.plan
    assert planned is not None and planned.unpacked_bytes >= SIZE
    assert everything == planned.needed_bytes + planned.unpacked_bytes


def test_without_space_nothing_is_unpacked(job: Attempts) -> None:
    def refuse(needed: SpaceNeeded) -> None:
        if needed.conversion_bytes >= SIZE:
            assert not (job.folder / "unpacked" / "archive" / "web01-disk1.raw").exists()
            raise TryLater("space-short", "there is no space", hint="Wait")

    with pytest.raises(TryLater):
        plan_only(job.order, Context(unheard, refuse))
