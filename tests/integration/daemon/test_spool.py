"""Files that are dropped, whole or in pieces, good or bad, and where they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from hyper2kvmd.model.jobs import State
from tests.support.house import House, until

SLOW_COPY = """
import sys, pathlib
with open(sys.argv[1], "w") as file:
    file.write(sys.argv[2]); file.flush()
    print("half", flush=True)
    sys.stdin.readline()
    file.write(sys.argv[3])
"""


def test_a_file_moved_in_becomes_a_job_and_ends_in_done(house: House) -> None:
    house.start()
    house.drop("web01.yaml", house.migration("web01", "plan", "convert", "publish", priority=7))
    job = house.reaches(1, State.SUCCEEDED)
    house.lies("done", "web01.yaml")
    assert (job.vm_name, job.priority, job.spool_name, job.attempt) == ("web01", 7, "web01.yaml", 1)
    assert job.submitter == "root" and job.note == str(house.root / "images" / "web01.qcow2")
    assert job.started is not None and job.finished is not None
    assert house.kinds(1) == [
        "submitted",
        "claimed",
        *["stage-started", "stage-finished"] * 5,
        "succeeded",
    ]
    assert house.files("incoming") == house.files("active") == house.files("failed") == []
    assert house.working_folders() == []


def test_what_lay_there_before_the_start_is_taken_and_a_failed_one_ends_in_failed(house: House) -> None:
    house.drop("a.yml", house.migration("a", "plan", "fail permanent"))
    house.start()
    job = house.reaches(1, State.FAILED)
    house.lies("failed", "a.yml")
    assert [problem.code for problem in job.problems] == ["told-to"]
    house.drop("a.yml", house.migration("a", "plan", memory=1024))
    house.lies("done", "a.yml")
    assert house.process is not None and house.process.poll() is None


def test_a_copy_in_progress_is_never_taken_half_way(house: House) -> None:
    house.start()
    text = house.migration("slow", "plan", no_grub=True)
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_COPY, house.spool / "incoming" / "slow.yaml", text[:-1], "}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"half\n"
        house.drop("later.yaml", house.migration("later", "plan"))
        house.lies("done", "later.yaml")
        house.drop("latest.yaml", house.migration("latest", "plan"))
        house.lies("done", "latest.yaml")
        assert house.files("incoming") == ["slow.yaml"]
        writer.communicate(b"\n")
    house.lies("done", "slow.yaml")
    migration = house.reaches(3, State.SUCCEEDED).migration
    assert migration is not None and migration.no_grub


def test_names_of_drafts_are_left_alone(house: House) -> None:
    house.start()
    text = house.migration("draft", "plan")
    names = [".web.yaml", ".web.yaml.Xb12", "web.yaml~", "web.yaml.part", "README", ".#web.yaml"]
    for name in names:
        house.drop(name, text)
    house.drop("real.yaml", house.migration("real", "plan"))
    house.lies("done", "real.yaml")
    assert house.names("incoming") == sorted(names)
    assert [job.vm_name for job in house.jobs()] == ["real"]


def test_a_bad_yaml_is_rejected_with_every_error_and_is_on_record(house: House) -> None:
    house.start()
    house.drop("bad.yaml", "vmdk: /a.vmdk\nmemory: much\nbanana: 1\n")
    rejection = house.rejection("bad.yaml")
    assert {problem.key for problem in rejection.problems} == {"memory", "banana"}
    assert {problem.line for problem in rejection.problems} == {2, 3}
    assert all(problem.column and problem.hint and problem.code for problem in rejection.problems)
    job = house.job(1)
    assert (job.state, job.problems, rejection.job_id) == (State.REJECTED, rejection.problems, 1)
    house.drop("bad.yaml", "vmdk: /a.vmdk\nbanana: 2\n")
    assert house.rejection("bad.2.yaml").job_id == 2
    assert house.kinds(1) == ["rejected"]


def test_the_same_content_while_active_is_one_job(house: House) -> None:
    house.start()
    text = house.migration("web01", "plan", f"wait {house.root}/go")
    house.drop("web01.yaml", text)
    house.reaches(1, State.RUNNING)
    house.drop("again.yaml", text)
    rejection = house.rejection("again.yaml")
    assert (rejection.job_id, [problem.code for problem in rejection.problems]) == (2, ["duplicate"])
    assert "the same content as job 1, which is running" in rejection.problems[0].message
    assert [job.state for job in house.jobs()] == [State.RUNNING, State.REJECTED]
    assert "duplicate" in house.kinds(1)
    (house.root / "go").touch()
    house.reaches(1, State.SUCCEEDED)
    house.drop("web01.yaml", text)
    house.reaches(3, State.SUCCEEDED)
    house.lies("done", "web01.3.yaml")


def test_the_same_text_under_two_names_is_two_jobs(house: House) -> None:
    """The machine is called after its file."""
    house.start()
    script = house.root / "script"
    script.write_text(f"wait {house.root}/go")
    text = f"vmdk: {script}\n"
    house.drop("web01.yaml", text)
    house.drop("web02.yaml", text)
    until(lambda: {job.vm_name for job in house.jobs()} == {"web01", "web02"}, "both are jobs")
    for name, code in (("web01", 200), ("web03", 201)):
        assert house.ask("POST", "/v1/jobs", {"text": text, "name": name})[0] == code
    assert house.files("rejected") == []


def test_names_that_no_database_or_file_system_would_take_twice(house: House) -> None:
    house.start()
    long = "n" * 245 + ".yaml"
    house.drop("short", house.migration("long", "plan")).rename(house.spool / "incoming" / long)
    house.drop("x", "nothing").rename(os.fsdecode(os.fsencode(house.spool / "incoming") + b"/\xff\n.yaml"))
    until(lambda: len(house.jobs()) == 2 and len(house.files("rejected")) == 1, "both were taken")
    until(lambda: len(house.files("done")) == 1, "the long one is done")
    assert house.files("incoming") == []


def test_a_daemon_killed_at_any_point_of_the_spool_loses_and_doubles_nothing(house: House) -> None:
    for number in range(30):
        house.drop(f"vm{number}.yaml", house.migration(f"vm{number}", "plan", "publish"))
    for target in (3, 9, 16, 24):
        house.start()
        until(lambda: len(house.files("done")) >= target, f"{target} are done")  # noqa: B023
        house.stop(signal.SIGKILL)
    house.start()
    until(lambda: len(house.files("done")) == 30, f"all are done: {house.log}")
    assert house.files("done") == sorted(f"vm{number}.yaml" for number in range(30))
    assert sorted(job.vm_name for job in house.jobs()) == sorted(f"vm{number}" for number in range(30))
    assert all(job.state is State.SUCCEEDED for job in house.jobs())
    suffixes = ("", ".result.json", ".result.md")
    assert house.names("done") == sorted(f"vm{number}.yaml{suffix}" for number in range(30) for suffix in suffixes)
    assert house.files("active") == house.files("incoming") == house.files("rejected") == house.files("failed") == []


def test_a_file_claimed_by_a_daemon_that_died_before_the_database_knew(house: House) -> None:
    (house.spool / "active").mkdir(parents=True)
    (house.spool / "active" / "0123456789ab.web01.yaml").write_text(house.migration("web01", "plan"))
    house.start()
    assert house.reaches(1, State.SUCCEEDED).spool_name == "web01.yaml"
    house.lies("done", "web01.yaml")


def test_files_become_jobs_in_the_order_of_their_arrival(house: House) -> None:
    """By time of change, then by name, even if one scan finds them all."""
    for name, second in (("c", 1), ("a", 3), ("d", 2), ("b", 2)):
        path = house.drop(f"{name}.yaml", house.migration(name, "plan"))
        os.utime(path, (second, second))
    house.start()
    house.reaches(4, State.SUCCEEDED)
    assert [job.vm_name for job in house.jobs()] == ["c", "b", "d", "a"]
