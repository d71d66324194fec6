"""Jobs among daemons that stop, drain or die."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from hyper2kvmd.jobs.deaths import MAX_DEATHS
from hyper2kvmd.model.jobs import Stage, State
from tests.support.house import House, until
from tests.support.running_jobs import waiting, workers

STOP_LIMIT_SECONDS = 90
"""TimeoutStopSec of the unit."""


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
