"""Jobs among workers that die, hang or fail."""

from __future__ import annotations

import pytest

from hyper2kvmd.daemon.service import status_line
from hyper2kvmd.model.jobs import Job, State, WaitingFor
from tests.support.house import House, events_adapter, until
from tests.support.running_jobs import started, waiting, workers


def test_a_worker_that_dies_is_tried_again_from_its_first_unfinished_stage(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "convert", "file 4096", "die-once", "publish"))
    job = house.reaches(1, State.SUCCEEDED)
    assert job.attempt == 2
    assert house.kinds(1) == [
        *("submitted", "claimed", "stage-started", "stage-finished", "stage-started", "stage-finished"),
        *("requeued", "claimed", *["stage-started", "stage-finished"] * 3, "succeeded"),
    ]
    assert house.working_folders() == []


def test_a_worker_that_always_dies_fails_at_last_and_its_image_is_kept(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "start convert", "file 4096", "die"))
    job = house.reaches(1, State.FAILED)
    assert (job.attempt, job.problems[0].code, job.problems[0].kind) == (2, "worker-crashed", "retry")
    assert "signal 9" in job.problems[0].message and "convert" in job.problems[0].message
    assert house.working_folders() == ["a.1"] and job.note.startswith("working folder kept until ")


def test_a_fault_of_our_own_is_one_line_with_its_traceback(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "fault Traceback:\\n  in f\\nValueError: evil\x1b[2J\\n<0>forged"))
    assert house.reaches(1, State.HELD).problems[0].code == "internal-error"
    (line,) = (line for line in house.log.splitlines() if "Traceback" in line)
    assert line.endswith("ERROR job 1: Traceback: /   in f / ValueError: evil\ufffd[2J / <0>forged")
    assert not any(line.startswith("<0>") for line in house.log.splitlines())


def test_a_worker_that_speaks_nonsense_is_killed(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "nonsense"))
    job = house.reaches(1, State.FAILED)
    assert job.problems[0].code == "worker-crashed" and "invalid event" in job.problems[0].message
    assert "again" not in job.problems[0].hint  # it has failed: nothing is tried any more
    assert workers(house) == []


@pytest.mark.parametrize(("kind", "attempts"), [("retry", 2), ("permanent", 1)])
def test_only_what_time_may_cure_is_tried_again(house: House, kind: str, attempts: int) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", f"fail {kind}"))
    assert house.reaches(1, State.FAILED).attempt == attempts
    house.lies("failed", "a.yaml")


def test_a_job_that_its_worker_postpones_says_why(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "defer job-already-running"))
    until(lambda: house.jobs() and house.job(1).note, "it waits")
    job = house.job(1)
    assert (job.state, job.attempt, job.waiting_for) == (State.QUEUED, 1, WaitingFor.RETRY)
    assert job.note == "told to wait. Wait. [job-already-running]" == house.events(1)[-1].message


def test_what_a_person_must_correct_holds_the_job_and_its_file_until_a_retry(house: House) -> None:
    house.configure(retention={"conversions": 0})
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "file 4096", "convert", "fail operator"))
    job = house.reaches(1, State.HELD)
    assert (job.attempt, job.waiting_for, job.problems[0].code) == (1, WaitingFor.REMEDY, "told-to")
    assert "`h2kvmctl retry 1`" in job.note and house.working_folders() == ["a.1"]
    assert house.files("active") and house.files("failed") == []
    assert status_line(house.status(), "") == "idle; 0 queued; 1 held"
    assert 'hyper2kvm_jobs_held_after_failure_total{reason="told-to"} 1.0' in house.browse("/metrics")[1]
    house.stop()
    house.start()
    assert house.job(1).state is State.HELD, "a restart is no remedy"
    (house.root / "a.vmdk").write_text("plan\nconvert\npublish\n")
    assert house.ask("POST", "/v1/jobs/1/retry")[0] == 200
    assert house.reaches(1, State.SUCCEEDED).problems == ()
    assert started(house, 1).count("convert") == 1, "it went on after the conversion"
    house.lies("done", "a.yaml")


def test_a_job_that_is_held_after_a_failure_can_be_cancelled(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "file 4096", "fail operator"))
    house.reaches(1, State.HELD)
    assert house.ask("POST", "/v1/jobs/1/cancel")[0] == 200
    house.reaches(1, State.CANCELLED)
    house.lies("failed", "a.yaml")
    until(lambda: house.job(1).note.startswith("working folder kept until "), "its folder is kept for a while")


def test_slots_and_priorities(house: House) -> None:
    house.configure(max_concurrent_jobs=1)
    house.start()
    house.drop("first.yaml", waiting(house, "first"))
    house.reaches(1, State.RUNNING)
    for name, priority in (("low", 1), ("high", 9), ("middle", 5)):
        house.drop(f"{name}.yaml", house.migration(name, "plan", priority=priority))
        until(lambda name=name: any(job.vm_name == name for job in house.jobs()), f"{name} is queued")  # type: ignore[misc]
    assert [job.state for job in house.jobs()].count(State.RUNNING) == len(workers(house)) == 1
    (house.root / "go").touch()
    jobs = until(lambda: _all(house, State.SUCCEEDED), "all are done")
    started = sorted(jobs, key=lambda job: job.started or job.created)
    assert [job.vm_name for job in started] == ["first", "high", "middle", "low"]


def _all(house: House, state: State) -> tuple[Job, ...]:
    jobs = house.jobs()
    return jobs if all(job.state is state for job in jobs) else ()


def test_machines_of_two_jobs_with_one_mac_address_are_told_apart(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan 00:50:56:00:00:01 00:50:56:00:00:02", "publish"))
    house.reaches(1, State.SUCCEEDED)
    house.drop("b.yaml", house.migration("b", "plan 00:50:56:00:00:02 00:50:56:00:00:03", "publish"))
    house.reaches(2, State.SUCCEEDED)
    events = events_adapter.validate_json(house.ask("GET", "/v1/jobs/2/events")[1])
    (warning,) = (event.message for event in events if event.kind == "warned")
    assert warning.startswith("b has the MAC address 00:50:56:00:00:02, and so has a of job 1.")
    assert "warned" not in house.kinds(1)
    assert warning in house.log


def test_a_worker_that_moves_nothing_is_ended_and_the_job_tried_again(house: House) -> None:
    house.configure(stall_after=1, stall_retry_after=3)
    house.start()
    house.drop("a.yaml", waiting(house, "a", "file 4096", "progress 1 100"))
    until(lambda: "requeued" in (house.kinds(1) if house.jobs() else ()), "it is tried again")
    (house.root / "go").touch()
    assert house.reaches(1, State.SUCCEEDED).attempt > 1
    assert "a has moved no byte for 3" in house.log and "convert: Copying: its worker was ended" in house.log
    assert [event for event in house.events(1) if "job-without-progress" in event.message]
