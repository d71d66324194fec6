"""Jobs among crashes, retries, cancels, full disks and daemons that stop or die."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hyper2kvmd.daemon.service import status_line
from hyper2kvmd.jobs.deaths import MAX_DEATHS
from hyper2kvmd.model.jobs import Job, Stage, State, WaitingFor
from tests.support.house import House, events_adapter, until

MIB = 1 << 20
STOP_LIMIT_SECONDS = 90
"""TimeoutStopSec of the unit."""


def workers(house: House) -> list[psutil.Process]:
    assert house.process is not None
    return [
        child for child in psutil.Process(house.process.pid).children() if "small_worker" in " ".join(child.cmdline())
    ]


def started(house: House, number: int) -> list[str]:
    """The stages that were started, in all attempts."""
    events = events_adapter.validate_json(house.ask("GET", f"/v1/jobs/{number}/events")[1])
    return [event.message for event in events if event.kind == "stage-started"]


def waiting(house: House, name: str, *words: str) -> str:
    """A migration that waits in the midst of convert until `house.root/go` is there."""
    return house.migration(name, "plan", "start convert", *words, f"wait {house.root}/go", "convert", "publish")


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


def test_a_retry_by_hand_goes_on_after_what_was_published_and_the_file_follows(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "convert", "publish", "fail retry"))
    house.reaches(1, State.FAILED)
    house.lies("failed", "a.yaml")
    (house.root / "a.vmdk").write_text("plan\nconvert\npublish\n")
    assert house.ask("POST", "/v1/jobs/1/retry")[0] == 200
    house.reaches(1, State.SUCCEEDED)
    house.lies("done", "a.yaml")
    assert house.files("failed") == []
    kinds = house.kinds(1)
    assert kinds[kinds.index("retried") :] == ["retried", "claimed", "succeeded"]


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


def test_cancel_ends_a_running_worker_and_retry_goes_on_from_its_folder(house: House) -> None:
    house.start()
    house.drop("a.yaml", waiting(house, "a", "file 4096"))
    until(lambda: house.working_folders() == ["a.1"] and "stage-finished" in house.kinds(1), "it works")
    code, body = house.ask("POST", "/v1/jobs/1/cancel")
    assert code == 200 and Job.model_validate_json(body).state is State.RUNNING
    job = house.reaches(1, State.CANCELLED)
    assert house.working_folders() == ["a.1"] and workers(house) == []
    assert job.note.startswith("working folder kept until ")
    house.lies("failed", "a.yaml")
    assert house.kinds(1)[-2:] == ["cancel-requested", "cancelled"]
    (house.root / "go").touch()
    house.ask("POST", "/v1/jobs/1/retry")
    assert house.reaches(1, State.SUCCEEDED).attempt == 2
    assert started(house, 1).count("plan") == 1, "plan was not run again"
    assert house.working_folders() == []


def test_a_worker_deaf_to_its_cancel_is_killed_and_its_folder_kept(house: House) -> None:
    house.start()
    house.drop("a.yaml", waiting(house, "a", "file 4096", "deaf", "warn it is deaf now"))
    until(lambda: house.jobs() and "warned" in house.kinds(1), "it is deaf")
    house.ask("POST", "/v1/jobs/1/cancel")
    house.reaches(1, State.CANCELLED)
    assert house.working_folders() == ["a.1"] and workers(house) == []
    assert "did not exit within 4 s and is killed" in house.log


def test_a_job_cancelled_before_its_conversion_leaves_no_folder(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", f"wait {house.root}/go"))
    until(lambda: house.working_folders() == ["a.1"] and "stage-finished" in house.kinds(1), "it works")
    house.ask("POST", "/v1/jobs/1/cancel")
    assert house.reaches(1, State.CANCELLED).note == ""
    assert house.working_folders() == []


def test_a_job_cancelled_between_two_tries_keeps_its_folder(house: House) -> None:
    house.configure(retry={"max_attempts": 3, "delay": 3600, "backoff": 1})
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "file 4096", "die"))
    job = until(lambda: next((job for job in house.jobs() if job.note), None), "it waits for its second try")
    assert "will be retried" in job.note and job.not_before is not None
    assert house.working_folders() == ["a.1"]
    house.ask("POST", "/v1/jobs/1/cancel")
    house.reaches(1, State.CANCELLED)
    until(lambda: house.job(1).note.startswith("working folder kept until "), "it says so")
    assert house.working_folders() == ["a.1"]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("plan", "fail retry"), []),
        (("plan", "file 4096", "fail retry"), ["a.1"]),
        (("plan", "file 4096", "convert", "fail retry"), ["a.1"]),
        (("plan", "file 4096", "convert", "fail permanent"), []),
        (("plan", "file 4096", "convert", "fail retry content-differs"), []),
        (("plan", "file 4096", "convert", "publish", "fail retry"), ["a.1"]),
    ],
    ids=["not converted", "half converted", "converted", "source at fault", "image in doubt", "published"],
)
def test_a_folder_is_kept_that_a_retry_can_go_on_from(house: House, words: tuple[str, ...], kept: list[str]) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", *words))
    job = house.reaches(1, State.FAILED)
    assert (house.working_folders(), bool(job.note)) == (kept, bool(kept))


def test_a_retry_goes_on_after_the_last_finished_stage(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "file 4096", "convert", "fail retry"))
    house.reaches(1, State.FAILED)
    (house.root / "a.vmdk").write_text("plan\nconvert\npublish\n")
    house.ask("POST", "/v1/jobs/1/retry")
    assert house.reaches(1, State.SUCCEEDED).note == str(house.root / "images/a.qcow2")
    assert started(house, 1) == ["plan", "convert", "repair", "verify", "publish"]
    assert house.working_folders() == []
    assert "job 1: a continues at repair" in house.log


def test_a_plan_that_is_made_again_continues_nothing(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "file 4096", "fail retry"))
    house.reaches(1, State.FAILED)
    (house.root / "a.vmdk").write_text("start plan\nconvert\npublish\n")
    house.ask("POST", "/v1/jobs/1/retry")
    house.reaches(1, State.SUCCEEDED)
    assert started(house, 1)[:2] == ["plan", "plan"] and "continues at" not in house.log


def test_a_retry_after_the_plan_records_the_network_cards_again(house: House) -> None:
    mac = "52:54:00:12:34:56"
    house.start()
    house.drop("a.yaml", house.migration("a", f"plan {mac}", "file 4096", "convert", "fail retry"))
    house.reaches(1, State.FAILED)
    (house.root / "a.vmdk").write_text("plan\nconvert\npublish\n")
    house.ask("POST", "/v1/jobs/1/retry")
    house.reaches(1, State.SUCCEEDED)
    house.drop("b.yaml", house.migration("b", f"plan {mac}", "convert", "publish"))
    house.reaches(2, State.SUCCEEDED)
    assert ["so has a of job 1" in event.message for event in house.events(2) if event.kind == "warned"] == [True]


def test_a_folder_is_kept_that_lists_uploaded_files(house: House) -> None:
    """The next attempt removes these, although no other folder is kept."""
    house.configure(retention={"conversions": 0})
    house.start()
    words = ("plan", "convert", "file 4096", "publish")
    house.drop("a.yaml", house.migration("a", *words, "note uploading.json", "die"))
    house.reaches(1, State.FAILED)
    assert house.working_folders() == ["a.1"]
    house.drop("b.yaml", house.migration("b", *words, "die"))
    house.reaches(2, State.FAILED)
    assert house.working_folders() == ["a.1"]


def test_without_retention_nothing_is_kept(house: House) -> None:
    house.configure(retention={"conversions": 0})
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "file 4096", "convert", "fail retry"))
    assert house.reaches(1, State.FAILED).note == ""
    assert house.working_folders() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_daemon_is_that_of_its_workers_and_the_next_one_goes_on(
    house: House, number: signal.Signals
) -> None:
    house.start()
    house.drop("a.yaml", waiting(house, "a", "file 4096"))
    until(lambda: house.working_folders() == ["a.1"] and "stage-finished" in house.kinds(1), "it works")
    worker = workers(house)[0]
    code = house.stop(number)
    if number == signal.SIGTERM:
        assert code == 0 and not house.socket.exists()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker ended too")
    assert house.working_folders() == ["a.1"], "for the next attempt to go on from"
    (house.root / "go").touch()
    house.start()
    assert house.reaches(1, State.SUCCEEDED).attempt == 2
    assert house.kinds(1).count("stage-finished") == 5, "plan was not run again"
    assert "failed" not in house.kinds(1)
    assert house.working_folders() == []
    house.lies("done", "a.yaml")


def test_hold_release_and_a_cancel_before_the_start(house: House) -> None:
    house.start()
    assert house.ask("POST", "/v1/queue/pause")[0] == 200
    for name in ("a", "b"):
        house.drop(f"{name}.yaml", house.migration(name, "plan"))
        until(lambda name=name: any(job.vm_name == name for job in house.jobs()), f"{name} is queued")  # type: ignore[misc]
    assert house.ask("POST", "/v1/jobs/1/hold")[0] == 200
    assert house.ask("POST", "/v1/queue/resume")[0] == 200
    house.reaches(2, State.SUCCEEDED)
    assert house.job(1).state is State.HELD
    assert house.ask("POST", "/v1/jobs/1/release")[0] == 200
    house.reaches(1, State.SUCCEEDED)
    house.ask("POST", "/v1/queue/pause")
    house.drop("c.yaml", house.migration("c", "plan"))
    house.reaches(3, State.QUEUED)
    assert house.ask("POST", "/v1/jobs/3/cancel")[0] == 200
    assert house.job(3).state is State.CANCELLED
    house.lies("failed", "c.yaml")


def test_a_pause_outlives_the_daemon(house: House) -> None:
    house.start()
    house.ask("POST", "/v1/queue/pause")
    house.stop()
    house.drop("a.yaml", house.migration("a", "plan"))
    house.start()
    house.reaches(1, State.QUEUED)
    assert house.status().state == "paused"
    house.ask("POST", "/v1/queue/resume")
    house.reaches(1, State.SUCCEEDED)


def test_drain_lets_what_runs_end_starts_nothing_new_and_ends(house: House) -> None:
    house.configure(max_concurrent_jobs=1)
    house.start()
    house.drop("a.yaml", waiting(house, "a"))
    house.reaches(1, State.RUNNING)
    house.drop("b.yaml", house.migration("b", "plan"))
    house.reaches(2, State.QUEUED)
    assert house.ask("POST", "/v1/queue/drain")[0] == 200
    assert house.status().state == "draining"
    (house.root / "go").touch()
    assert house.process is not None and house.process.wait(90) == 0
    house.configure(max_concurrent_jobs=1)
    house.start()
    house.reaches(2, State.SUCCEEDED)
    assert house.job(1).state is State.SUCCEEDED


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


# ---------------------------------------------------------------- space


@pytest.fixture
def small_disk(house: House) -> Iterator[House]:
    """A conversion directory on a file system of 64 MiB."""
    house.conversions.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "h2k-test", house.conversions], check=True)
    yield house
    house.close()
    subprocess.run(["umount", "-l", house.conversions], check=True)


def test_a_job_that_does_not_fit_waits_saying_so_and_runs_when_it_does(small_disk: House) -> None:
    house = small_disk
    ballast = house.conversions / "ballast"
    ballast.write_bytes(bytes(40 * MIB))
    house.start()
    house.drop("big.yaml", house.migration("big", "plan", f"space {30 * MIB}", "convert"))
    job = until(lambda: next((job for job in house.jobs() if job.state is State.QUEUED and job.note), None), "it waits")
    assert "waiting for space" in job.note and str(house.conversions) in job.note and "MiB needed" in job.note
    assert job.not_before is not None and job.problems == ()
    house.drop("small.yaml", house.migration("small", "plan", f"space {MIB}", "convert"))
    assert house.reaches(2, State.SUCCEEDED)
    ballast.unlink()
    done = house.reaches(1, State.SUCCEEDED)
    assert done.attempt == 2 and "space-reserved" in house.kinds(1)


def test_space_promised_to_one_job_is_not_promised_to_another(small_disk: House) -> None:
    house = small_disk
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", f"space {40 * MIB}", f"wait {house.root}/go", "convert"))
    until(lambda: house.jobs() and house.job(1).reserved_bytes, "its space is reserved")
    status = house.status()
    assert status.conversion_reserved_bytes == 40 * MIB
    house.drop("b.yaml", house.migration("b", "plan", f"space {40 * MIB}", "convert"))
    until(lambda: len(house.jobs()) == 2 and house.job(2).note, "the second one waits")
    assert house.job(1).state is State.RUNNING
    (house.root / "go").touch()
    house.reaches(1, State.SUCCEEDED)
    house.reaches(2, State.SUCCEEDED)


def test_what_a_job_has_written_is_not_counted_twice(small_disk: House) -> None:
    house = small_disk
    house.start()
    words = ("plan", f"space {40 * MIB}", f"file {36 * MIB}", f"wait {house.root}/go", "convert")
    house.drop("a.yaml", house.migration("a", *words))
    until(lambda: house.jobs() and house.status().conversion_reserved_bytes == 4 * MIB, "36 of 40 MiB are written")
    house.drop("b.yaml", house.migration("b", "plan", f"space {20 * MIB}", "convert"))
    house.reaches(2, State.SUCCEEDED)
    assert house.job(1).state is State.RUNNING


def test_a_later_request_of_a_job_replaces_its_earlier_one(small_disk: House) -> None:
    """A job that unpacks an archive asks before it and after its plan."""
    house = small_disk
    house.start()
    words = (f"space {20 * MIB}", "plan", f"space {50 * MIB}", f"file {20 * MIB}", f"wait {house.root}/go", "convert")
    house.drop("a.yaml", house.migration("a", *words))
    until(lambda: house.jobs() and house.status().conversion_reserved_bytes == 30 * MIB, "20 of 50 MiB are written")
    assert house.job(1).attempt == 1
    (house.root / "go").touch()
    house.reaches(1, State.SUCCEEDED)


def keep_folders(house: House, *names: str, size: int = 15 * MIB) -> None:
    """One failed job for each name, one after the other."""
    for number, name in enumerate(names, 1):
        house.drop(f"{name}.yaml", house.migration(name, "plan", f"file {size}", "fail retry"))
        house.reaches(number, State.FAILED)


def test_a_job_takes_the_space_of_the_oldest_kept_folder_only(small_disk: House) -> None:
    house = small_disk
    house.start()
    keep_folders(house, "a", "b", "c")
    house.drop("d.yaml", house.migration("d", "plan", f"space {30 * MIB}", "convert"))
    assert house.reaches(4, State.SUCCEEDED).attempt == 1, "it did not wait"
    assert house.working_folders() == ["b.2", "c.3"]
    assert house.job(1).note == "working folder removed: job 4 needed the space"
    assert house.kinds(1)[-1] == "folder-removed"
    assert "job 1: its working folder was removed: job 4 needed the space" in house.log
    (house.root / "a.vmdk").write_text("plan\nconvert")
    house.ask("POST", "/v1/jobs/1/retry")
    house.reaches(1, State.SUCCEEDED)
    assert started(house, 1) == ["plan", "plan", "convert"], "it started over"


def test_no_kept_folder_goes_where_that_would_not_be_enough(small_disk: House) -> None:
    house = small_disk
    (house.conversions / "ballast").write_bytes(bytes(20 * MIB))
    house.start()
    keep_folders(house, "a", "b")
    house.drop("c.yaml", house.migration("c", "plan", f"space {60 * MIB}", "convert"))
    until(lambda: len(house.jobs()) == 3 and house.job(3).note, "it waits")
    assert {"a.1", "b.2"} < set(house.working_folders())
    (house.conversions / "ballast").unlink()
    house.reaches(3, State.SUCCEEDED)
    assert house.working_folders() == []


def test_a_job_that_waits_gets_the_space_of_one_that_fails_meanwhile(small_disk: House) -> None:
    house = small_disk
    house.start()
    words = ("plan", f"space {50 * MIB}", f"file {50 * MIB}", f"wait {house.root}/go", "fail retry")
    house.drop("a.yaml", house.migration("a", *words))
    until(lambda: house.jobs() and house.job(1).reserved_bytes, "its space is reserved")
    house.drop("b.yaml", house.migration("b", "plan", f"space {40 * MIB}", "convert"))
    until(lambda: len(house.jobs()) == 2 and house.job(2).note, "it waits")
    (house.root / "go").touch()
    house.reaches(2, State.SUCCEEDED)
    assert house.job(1).state is State.FAILED and house.working_folders() == []


def test_a_job_that_waits_holds_no_space_that_another_one_needs(small_disk: House) -> None:
    """It has a folder of its own, from before it had to wait."""
    house = small_disk
    house.start()
    keep_folders(house, "a", size=30 * MIB)
    (house.conversions / "ballast").write_bytes(bytes(20 * MIB))
    (house.root / "a.vmdk").write_text(f"plan\nspace {60 * MIB}\nconvert")
    house.ask("POST", "/v1/jobs/1/retry")
    until(lambda: "waiting for space" in house.job(1).note, "it waits")
    assert "a.1" in house.working_folders()
    house.drop("b.yaml", house.migration("b", "plan", f"space {40 * MIB}", "convert"))
    house.reaches(2, State.SUCCEEDED)
    assert house.job(1).state is State.QUEUED and house.working_folders() == ["ballast"]
    (house.conversions / "ballast").unlink()
    house.reaches(1, State.SUCCEEDED)


def test_kept_folders_leave_the_reserve_free(small_disk: House) -> None:
    house = small_disk
    house.configure(space_reserve="50%")
    house.start()
    keep_folders(house, "a", "b", "c")
    until(lambda: house.working_folders() == ["b.2", "c.3"], "the oldest one went")
    removed = "working folder removed: the file system was full up to space_reserve"
    until(lambda: house.job(1).note == removed, "its job says so")


def test_the_reserve_is_kept_free(small_disk: House) -> None:
    house = small_disk
    house.configure(space_reserve="50%")
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", f"space {40 * MIB}", "convert"))
    until(lambda: house.jobs() and house.job(1).note, "it waits")
    house.configure(space_reserve="1%")
    assert house.process is not None
    os.kill(house.process.pid, signal.SIGHUP)
    house.reaches(1, State.SUCCEEDED)


def test_one_folder_per_job_below_the_directory_that_the_yaml_names(house: House, tmp_path: Path) -> None:
    other = tmp_path / "other"
    house.configure(allowed_conversion_dirs=[str(other)])
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", f"wait {house.root}/go", conversion_dir=str(other)))
    until(lambda: (other / "a.1").is_dir(), "the folder is there")
    (house.root / "go").touch()
    house.reaches(1, State.SUCCEEDED)
    assert not (other / "a.1").exists()
    shutil.rmtree(other)


# ---------------------------------------------------------------- orderly ends


def test_a_job_that_the_daemon_dies_of_fails_by_name(house: House) -> None:
    house.drop("a.yaml", house.migration("a", "plan", "kill-daemon"))
    for _ in range(MAX_DEATHS):
        assert house.start(ready=False).wait(90) == -signal.SIGKILL
    house.start()
    job = house.reaches(1, State.FAILED)
    assert (job.problems[0].code, job.attempt) == ("job-deadly", MAX_DEATHS)
    house.lies("failed", "a.yaml")
    assert f"a failed: a: the daemon died {MAX_DEATHS} times" in house.log
    assert 'hyper2kvm_jobs_completed_total{outcome="failed",reason="job-deadly"} 1.0' in house.browse("/metrics")[1]


def test_a_worker_that_moves_nothing_is_ended_and_the_job_tried_again(house: House) -> None:
    house.configure(stall_after=1, stall_retry_after=3)
    house.start()
    house.drop("a.yaml", waiting(house, "a", "file 4096", "progress 1 100"))
    until(lambda: "requeued" in (house.kinds(1) if house.jobs() else ()), "it is tried again")
    (house.root / "go").touch()
    assert house.reaches(1, State.SUCCEEDED).attempt > 1
    assert "a has moved no byte for 3" in house.log and "convert: Copying: its worker was ended" in house.log
    assert [event for event in house.events(1) if "job-without-progress" in event.message]


def works(house: House, attempt: int) -> bool:
    return any((job.attempt, job.stage) == (attempt, Stage.CONVERT) for job in house.jobs())


def test_orderly_restarts_are_no_failed_tries(house: House) -> None:
    house.configure(retry={"max_attempts": 2, "delay": 0, "backoff": 1})
    house.drop("a.yaml", waiting(house, "a", "file 4096", "die-at 4"))
    for number in range(1, 4):
        house.start()
        until(lambda number=number: works(house, number), "it works")  # type: ignore[misc]
        assert house.stop() == 0
    (house.root / "go").touch()
    house.start()
    assert house.reaches(1, State.SUCCEEDED).attempt == 5, "one crash after three restarts is its first failure"


def test_a_worker_that_somebody_else_ends_counts_as_a_failed_try(house: House) -> None:
    """A daemon that ends processes when memory is short uses SIGTERM, too."""
    house.start()
    house.drop("a.yaml", waiting(house, "a"))
    for attempt in (1, 2):
        until(lambda attempt=attempt: works(house, attempt), "it works")  # type: ignore[misc]
        workers(house)[0].terminate()
    assert house.reaches(1, State.FAILED).attempt == 2


@pytest.mark.slow
def test_a_worker_deaf_to_the_end_of_the_daemon_is_killed_in_time(house: House) -> None:
    house.start()
    house.drop("a.yaml", waiting(house, "a", "file 4096", "deaf", "warn it is deaf now"))
    until(lambda: house.jobs() and "warned" in house.kinds(1), "it is deaf")
    begin, worker = time.monotonic(), workers(house)[0]
    assert house.stop() == 0
    assert time.monotonic() - begin < STOP_LIMIT_SECONDS
    assert not worker.is_running() and house.working_folders() == ["a.1"]
    (house.root / "go").touch()
    (house.root / "a.vmdk").write_text("plan\nconvert\npublish\n")
    house.start()
    assert house.reaches(1, State.SUCCEEDED).attempt == 2
