"""When the daemon starts a job: after others, in a window, by priority, by its source."""

from __future__ import annotations

import ctypes
import json
import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from hyper2kvmd.model.jobs import Job, State, WaitingFor
from tests.support.house import House, until

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
"""sys/mount.h"""


def window(first: int, last: int) -> dict[str, str]:
    """A daily window of the UTC hours around this one, counted from it."""
    now = datetime.now(UTC)
    hours = [f"{now + timedelta(hours=number):%H}:00" for number in (first, last)]
    return {"from": hours[0], "to": hours[1], "timezone": "UTC"}


def by_name(house: House) -> dict[str, Job]:
    return {job.vm_name: job for job in house.jobs()}


def started(house: House) -> list[str]:
    """The names of the jobs in the order of their first start."""
    jobs = [job for job in house.jobs() if job.started is not None]
    return [job.vm_name for job in sorted(jobs, key=lambda job: house.events(job.id)[-1].id)]


def test_a_file_is_a_batch_in_which_machines_wait_for_others(house: House) -> None:
    house.configure(max_concurrent_jobs=4)
    house.start()
    go = house.root / "go"
    listed = [
        json.loads(house.migration("web", "plan", after="db")),
        json.loads(house.migration("db", f"wait {go}", after=["storage"])),
        json.loads(house.migration("storage", "plan")),
    ]
    house.drop("rack.yaml", json.dumps({"vms": listed}))
    until(lambda: by_name(house).get("db") and by_name(house)["db"].state is State.RUNNING, f"db runs: {house.log}")
    web = by_name(house)["web"]
    assert (web.batch, web.batch_id, web.state, web.waiting_for) == ("rack", 1, State.QUEUED, WaitingFor.AFTER)
    assert web.note == "waits for db (job 2)"
    go.touch()
    house.lies("done", "rack.yaml")
    assert started(house) == ["storage", "db", "web"]


def test_files_with_one_batch_name_are_one_wave(house: House) -> None:
    house.start()
    go = house.root / "go"
    house.drop("a.yaml", house.migration("a", f"wait {go}", batch="wave1"))
    house.drop("b.yaml", house.migration("b", "plan", batch="wave1"))
    until(lambda: len(house.jobs()) == 2, f"both are jobs: {house.log}")
    house.drop("second.yaml", house.migration("second", "plan", after="wave1"))
    second = until(lambda: by_name(house).get("second"), f"it is a job: {house.log}")
    assert {job.batch_id for job in house.jobs()} == {1, None}
    assert second.waiting_for is WaitingFor.AFTER
    go.touch()
    house.reaches(second.id, State.SUCCEEDED)
    assert started(house)[-1] == "second"
    house.drop("c.yaml", house.migration("c", "plan", batch="wave1"))
    house.lies("done", "c.yaml")
    assert by_name(house)["c"].batch_id == 2


def test_a_job_waits_until_what_it_needs_succeeds_by_a_retry(house: House) -> None:
    house.start()
    house.drop("db.yaml", house.migration("db", "fail permanent"))
    house.reaches(1, State.FAILED)
    house.drop("web.yaml", house.migration("web", "plan", after="db"))
    held = house.reaches(2, State.HELD)
    assert held.waiting_for is WaitingFor.AFTER and "needs db (job 1), which failed" in held.note
    (house.root / "db.vmdk").write_text("plan")
    assert house.ask("POST", "/v1/jobs/1/retry")[0] == 200
    house.lies("done", "web.yaml")
    house.drop("app.yaml", house.migration("app", "plan", after="gone"))
    rejection = house.rejection("app.yaml")
    assert [problem.code for problem in rejection.problems] == ["after-unknown"]
    code, answer = house.ask("POST", "/v1/jobs", {"text": house.migration("app", after="gone"), "name": "app"})
    assert code == 409 and b"after-unknown" in answer


def test_a_job_starts_in_its_window_only(house: House) -> None:
    house.start()
    house.drop("shut.yaml", house.migration("shut", "plan", window=window(2, 4)))
    house.drop("late.yaml", house.migration("late", "plan", not_before="2999-01-01 00:00Z"))
    house.drop("open.yaml", house.migration("open", "plan", window=window(-1, 3)))
    house.lies("done", "open.yaml")
    jobs = by_name(house)
    opens = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)
    assert jobs["shut"].waiting_for is WaitingFor.WINDOW
    assert jobs["shut"].not_before is not None and abs(jobs["shut"].not_before - opens) <= timedelta(hours=1)
    assert (jobs["late"].state, jobs["late"].waiting_for) == (State.QUEUED, WaitingFor.TIME)
    assert house.kinds(jobs["shut"].id) == ["submitted"]


def test_a_higher_priority_moves_a_waiting_job_forward(house: House) -> None:
    house.configure(max_concurrent_jobs=1)
    house.start()
    go = house.root / "go"
    house.drop("first.yaml", house.migration("first", f"wait {go}"))
    house.reaches(1, State.RUNNING)
    for name in ("early", "late"):
        house.drop(f"{name}.yaml", house.migration(name, "plan"))
        until(lambda name=name: by_name(house).get(name), f"{name} is a job: {house.log}")  # type: ignore[misc]
    late = by_name(house)["late"]
    assert house.ask("POST", f"/v1/jobs/{late.id}/priority", {"priority": late.priority + 1})[0] == 200
    go.touch()
    house.lies("done", "early.yaml")
    assert started(house) == ["first", "late", "early"]


def test_jobs_of_a_busy_file_system_wait_and_others_start(house: House) -> None:
    """`other` has its source on a tmpfs that only the daemon sees."""
    other, go = house.root / "other", house.root / "go"
    other.mkdir()
    go_on = f"wait {go}"
    here = house.migration("here", go_on, priority=9)
    same = house.migration("same", go_on, priority=8)
    elsewhere = json.loads(house.migration("elsewhere", priority=1)) | {"vmdk": str(other / "elsewhere.vmdk")}
    house.configure(max_concurrent_jobs=4, max_per_source={"default": 1})
    house.start(preexec_fn=partial(mount_with, other, "elsewhere.vmdk", go_on))
    house.drop("all.yaml", json.dumps({"vms": [json.loads(here), json.loads(same), elsewhere]}))
    until(lambda: started(house) == ["here", "elsewhere"], f"the first and the last one start: {house.log}")
    until(lambda: by_name(house)["same"].waiting_for is WaitingFor.SOURCE, "same waits for its source")
    passed = by_name(house)["same"]
    assert passed.state is State.QUEUED
    assert "limits of sources: 1 from any other" in house.log
    house.configure(max_concurrent_jobs=4, max_per_source=2)
    assert house.process is not None
    house.process.send_signal(signal.SIGHUP)
    house.reaches(passed.id, State.RUNNING)
    go.touch()
    house.lies("done", "all.yaml")


def mount_with(directory: Path, name: str, text: str) -> None:
    """Before the daemon: a tmpfs with one file, in a mount namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    if failed or libc.mount(b"tmpfs", bytes(directory), b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "this test needs root, and the right to make mount namespaces")
    (directory / name).write_text(text)
