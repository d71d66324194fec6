"""Jobs that need space: who gets it, who waits for it, and which kept folders go for it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from hyper2kvmd.model.jobs import State
from tests.support.house import House, until
from tests.support.running_jobs import started

MIB = 1 << 20


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
