"""Files that describe several machines: one job for each, all or none, and one file that follows them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from hyper2kvmd.host.person import Person
from hyper2kvmd.model.jobs import Job, State
from tests.support.house import House, jobs_adapter, until


def batch(house: House, *machines: tuple[str, ...], **common: object) -> str:
    """The YAML of machines, each given as its name and the words of its worker."""
    listed = [json.loads(house.migration(name, *words)) for name, *words in machines]
    return json.dumps({**common, "vms": listed})


def by_name(house: House) -> dict[str, Job]:
    return {job.vm_name: job for job in house.jobs()}


def all_are(house: House, count: int, state: State) -> None:
    until(lambda: [job.state for job in house.jobs()] == [state] * count, f"{count} are {state}: {house.log}")


def test_each_machine_becomes_a_job_and_the_file_waits_for_all(house: House) -> None:
    house.start()
    go = house.root / "go"
    house.drop("rack.yaml", batch(house, ("a", "plan"), ("b", f"wait {go}"), ("c", "plan"), verbose=2, priority=7))
    until(lambda: [job.state for job in house.jobs()].count(State.SUCCEEDED) == 2, f"two are done: {house.log}")
    jobs = by_name(house)
    assert set(jobs) == {"a", "b", "c"}
    assert {(job.spool_name, job.submitter, job.priority) for job in jobs.values()} == {("rack.yaml", "root", 7)}
    assert len({job.batch for job in jobs.values()}) == 1 and len({job.content_key for job in jobs.values()}) == 3
    assert [note.code for note in jobs["b"].notes] == ["key-without-effect"]
    house.drop("later.yaml", house.migration("later", "plan"))
    house.lies("done", "later.yaml")
    assert len(house.files("active")) == 1
    go.touch()
    house.lies("done", "rack.yaml")
    assert house.files("active") == house.files("failed") == []


def test_a_file_with_a_failure_lies_in_failed_until_all_have_succeeded(house: House) -> None:
    house.start()
    house.drop(
        "rack.yaml", batch(house, ("a", "plan"), ("b", "fail permanent"), ("c", "fail permanent"), ("d", "plan"))
    )
    house.lies("failed", "rack.yaml")
    for name, folder in (("b", "failed"), ("c", "done")):
        (house.root / f"{name}.vmdk").write_text("plan")
        job = by_name(house)[name]
        assert house.ask("POST", f"/v1/jobs/{job.id}/retry")[0] == 200
        house.reaches(job.id, State.SUCCEEDED)
        house.drop(f"after-{name}.yaml", house.migration(f"after-{name}", "plan"))
        house.lies("done", f"after-{name}.yaml")
        house.lies(folder, "rack.yaml")
    assert house.files("failed") == house.files("active") == []


def test_an_error_in_one_machine_rejects_the_file(house: House) -> None:
    house.start()
    text = house.migration("a", "plan")
    house.drop("rack.yaml", f"vms:\n- {text}\n- vmdk: b.vmdk\n- vmdk: /c.vmdk\n  banana: 1\n")
    rejection = house.rejection("rack.yaml")
    assert [(one.key, one.line) for one in rejection.problems] == [("vmdk", 3), ("banana", 5)]
    assert [job.state for job in house.jobs()] == [State.REJECTED]


def test_a_file_is_a_duplicate_while_any_of_its_machines_is_active(house: House) -> None:
    house.start()
    go = house.root / "go"
    text = batch(house, ("a", "plan"), ("b", f"wait {go}"))
    house.drop("rack.yaml", text)
    house.reaches(1, State.SUCCEEDED)
    house.reaches(2, State.RUNNING)
    house.drop("rack2.yaml", text)
    rejection = house.rejection("rack2.yaml")
    assert [problem.code for problem in rejection.problems] == ["duplicate"]
    assert "b in rack2.yaml has the same content as job 2, which is running" in rejection.problems[0].message
    assert [job.vm_name for job in house.jobs()] == ["a", "b", "b"]
    go.touch()
    house.lies("done", "rack.yaml")
    house.drop("rack.yaml", text)
    until(lambda: len(house.files("done")) == 2, f"the second one is done too: {house.log}")
    assert [job.state for job in house.jobs()] == [*[State.SUCCEEDED] * 2, State.REJECTED, *[State.SUCCEEDED] * 2]


def test_a_daemon_killed_at_any_point_loses_and_doubles_no_machine(house: House) -> None:
    for number in range(12):
        machines = ((f"vm{number}-{letter}", "plan", "publish") for letter in "abc")
        house.drop(f"rack{number}.yaml", batch(house, *machines))
    for target in (1, 4, 8):
        house.start()
        until(lambda: len(house.files("done")) >= target, f"{target} are done")  # noqa: B023
        house.stop(signal.SIGKILL)
    house.start()
    until(lambda: len(house.files("done")) == 12, f"all are done: {house.log}")
    assert house.files("done") == sorted(f"rack{number}.yaml" for number in range(12))
    until(lambda: len(house.names("done")) == 36, "each has its outcome, as JSON and as Markdown, and nothing else")
    expected = sorted(f"vm{number}-{letter}" for number in range(12) for letter in "abc")
    assert sorted(job.vm_name for job in house.jobs()) == expected
    assert all(job.state is State.SUCCEEDED for job in house.jobs())
    assert house.files("active") == house.files("incoming") == house.files("rejected") == house.files("failed") == []


def test_a_batch_claimed_by_a_daemon_that_died_before_the_database_knew(house: House) -> None:
    (house.spool / "active").mkdir(parents=True)
    claim = "0123456789ab.rack.yaml"
    (house.spool / "active" / claim).write_text(batch(house, ("a", "plan"), ("b", "plan")))
    house.start()
    all_are(house, 2, State.SUCCEEDED)
    house.lies("done", "rack.yaml")
    assert {job.batch for job in house.jobs()} == {"rack"}


def test_a_home_directory_is_the_submitters(house: House) -> None:
    house.start()
    house.drop("web01.yaml", "vmdk: ~/none/web01.vmdk\n")
    until(lambda: len(house.jobs()) == 1, "it is a job")
    home = Person.of(0).home()
    (job,) = house.jobs()
    assert job.migration is not None and home is not None
    assert job.migration.vmdk == (home / "none/web01.vmdk",)


def test_batches_over_the_control_socket(house: House) -> None:
    house.start()
    go = house.root / "go"
    text = batch(house, ("a", "plan"), ("b", f"wait {go}"))
    body = {"text": text, "base": None, "name": "rack"}
    code, answer = house.ask("POST", "/v1/jobs", body)
    assert code == 400 and b"several machines: a, b" in answer and not house.jobs()
    code, answer = house.ask("POST", "/v1/batches", body)
    assert (code, [job.vm_name for job in jobs_adapter.validate_json(answer)]) == (201, ["a", "b"])
    house.reaches(1, State.SUCCEEDED)
    code, answer = house.ask("POST", "/v1/batches", body)
    assert code == 409 and b"the machine b is already active as job 2" in answer
    assert len(house.jobs()) == 2
    go.touch()
    house.reaches(2, State.SUCCEEDED)
    code, answer = house.ask(
        "POST", "/v1/batches", {"text": house.migration("c", f"wait {Path('/nowhere')}"), "name": "c"}
    )
    assert (code, len(jobs_adapter.validate_json(answer))) == (201, 1)


def test_the_same_batch_again_is_the_same_jobs(house: House) -> None:
    house.start()
    go = house.root / "go"
    body = {"text": batch(house, ("a", f"wait {go}"), ("b", f"wait {go}")), "base": None, "name": "rack"}
    first, second = house.ask("POST", "/v1/batches", body), house.ask("POST", "/v1/batches", body)
    assert (first[0], second[0]) == (201, 200)
    assert [job.id for job in jobs_adapter.validate_json(second[1])] == [1, 2]
    go.touch()
