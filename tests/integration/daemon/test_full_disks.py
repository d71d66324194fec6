"""File systems that become full under running jobs: they wait for space, and continue when nobody has done more."""

from __future__ import annotations

import contextlib
from functools import partial

from hyper2kvmd.daemon.service import status_line
from hyper2kvmd.model.jobs import Job, State, WaitingFor
from tests.support.ctl import ctl
from tests.support.house import House, until

MIB = 1 << 20


def started(house: House, number: int) -> list[str]:
    return [event.message for event in house.events(number) if event.kind == "stage-started"]


def waits(house: House, number: int) -> Job | None:
    job = next((job for job in house.jobs() if job.id == number), None)
    return job if job and job.state is State.QUEUED and job.waiting_for is WaitingFor.SPACE else None


def test_a_job_whose_disk_becomes_full_continues_by_itself(small_disk: House) -> None:
    house = small_disk
    house.start()
    words = ("plan", f"space {30 * MIB}", "convert", f"wait {house.root}/go", f"file {20 * MIB}", "publish")
    house.drop("a.yaml", house.migration("a", *words))
    until(lambda: house.jobs() and "convert" in started(house, 1), "it converts")
    (house.conversions / "ballast").write_bytes(bytes(60 * MIB))
    (house.root / "go").touch()
    job = until(partial(waits, house, 1), f"it waits: {house.log}")
    reason = f"the file system that holds {house.conversions}/a.1 is full. Free space there"
    assert job.note.startswith(f"waiting for space: {reason}") and job.problems[0].code == "disk-full"
    assert "waiting for space" in status_line(house.status(), "") and house.status().waiting_for_space == 1
    assert reason in house.browse("/jobs/1")[1]
    for command in (("show", "1"), ("list",)):
        assert "space" in ctl(*command, "--socket", house.socket, cwd=house.root).stdout
    until(lambda: house.browse("/healthz")[0] == 503, "the fault is named")
    assert house.job(1).attempt == 1, "it does not try while the disk is full"
    (house.conversions / "ballast").unlink()
    assert house.reaches(1, State.SUCCEEDED).attempt == 2
    assert [started(house, 1).count(stage) for stage in ("plan", "convert", "publish")] == [1, 1, 1]
    assert "held" not in house.kinds(1) and house.status().waiting_for_space == 0


def test_two_jobs_that_fill_a_disk_do_not_wait_for_each_other(small_disk: House) -> None:
    """Each has written more than it asked for: the later one gives up what it has, and the earlier one continues."""
    house = small_disk
    house.start()
    words = ("plan", f"space {30 * MIB}", "convert", f"file {25 * MIB}", f"wait {house.root}/go", f"file {25 * MIB}")
    for name in ("a", "b"):
        house.drop(f"{name}.yaml", house.migration(name, *words, "publish"))
    until(lambda: len(house.working_folders()) == 2 and house.status().conversion_free_bytes < 15 * MIB, "both wrote")
    (house.root / "go").touch()
    house.reaches(1, State.SUCCEEDED)
    house.reaches(2, State.SUCCEEDED)
    assert "folder-removed" in house.kinds(2) and "folder-removed" not in house.kinds(1)
    assert started(house, 1).count("convert") == 1 and started(house, 2).count("convert") == 2
    assert "job 2: its working folder was removed: job 1 needed the space" in house.log
    assert house.working_folders() == []


def test_folders_of_held_jobs_do_not_fill_the_disk_for_others(small_disk: House) -> None:
    """Nothing can be written there, so no job is started that could ask for their space."""
    house = small_disk
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "convert", f"file {40 * MIB}", "fail operator"))
    house.reaches(1, State.HELD)
    with (house.conversions / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    until(lambda: "conversion_dir " in house.log and "No space left on device" in house.log, "the fault is known")
    house.drop("b.yaml", house.migration("b", "plan", f"space {10 * MIB}", "convert"))
    house.reaches(2, State.SUCCEEDED)
    assert "folder-removed" in house.kinds(1)


def test_a_held_job_gives_up_its_folder_for_a_job_that_can_run(small_disk: House) -> None:
    house = small_disk
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "convert", f"file {40 * MIB}", "fail operator"))
    held = house.reaches(1, State.HELD)
    house.drop("b.yaml", house.migration("b", "plan", f"space {10 * MIB}", "convert"))
    house.reaches(2, State.SUCCEEDED)
    assert house.working_folders() == ["a.1"], "not without need"
    house.drop("c.yaml", house.migration("c", "plan", f"space {40 * MIB}", "convert"))
    house.reaches(3, State.SUCCEEDED)
    assert house.working_folders() == [] and house.kinds(1)[-1] == "folder-removed"
    assert house.job(1).note == held.note and house.job(1).waiting_for is WaitingFor.REMEDY
    (house.root / "a.vmdk").write_text("plan\nconvert")
    house.ask("POST", "/v1/jobs/1/retry")
    house.reaches(1, State.SUCCEEDED)
    assert started(house, 1) == ["plan", "convert"] * 2, "it started over"
