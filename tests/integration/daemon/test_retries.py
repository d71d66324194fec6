"""Jobs that are cancelled or retried, and the folders from which they continue."""

from __future__ import annotations

import pytest

from hyper2kvmd.model.jobs import Job, State
from tests.support.house import House, until
from tests.support.running_jobs import started, waiting, workers


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
