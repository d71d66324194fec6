"""The files beside a YAML that show its submitter what became of it."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.daemon import incoming, outcomes
from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.spool import Spool
from hyper2kvmd.host import acl
from hyper2kvmd.host.person import READ, SEARCH, WRITE, Person
from hyper2kvmd.jobs.moves import MoveKind
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Problem, Stage, State
from tests.support.house import House, until

NOBODY, GAMES = 65534, 5


def batch(house: House, **machines: tuple[str, ...]) -> str:
    return json.dumps({"vms": [json.loads(house.migration(name, *words)) for name, words in machines.items()]})


def test_a_success_is_told_with_its_warnings(house: House) -> None:
    house.start()
    words = ("plan", "convert", "warn the clock is off [clock-off]", "warn a plain one", "warn a plain one", "publish")
    house.drop("web01.yaml", house.migration("web01", *words, verbose=2))
    house.lies("done", "web01.yaml")
    outcome = house.result("web01.yaml")
    (machine,) = outcome.machines
    job = house.job(1)
    assert (outcome.file, outcome.job_id, outcome.state, outcome.submitter) == (
        "web01.yaml",
        1,
        State.SUCCEEDED,
        "root",
    )
    assert (outcome.submitted, machine.started, machine.finished) == (job.created, job.started, job.finished)
    assert [(one.code, one.message) for one in machine.warnings] == [
        ("clock-off", "the clock is off"),
        (None, "a plain one"),
    ]
    assert [(note.code, bool(note.hint)) for note in machine.notes] == [("key-without-effect", True)]
    assert set(machine.seconds) == {Stage.PLAN, Stage.CONVERT, Stage.REPAIR, Stage.VERIFY, Stage.PUBLISH}
    assert [image.path.name for image in machine.images] == ["web01.qcow2"]
    assert machine.reports and machine.problems == () and machine.kept == ""
    text = (house.spool / "done/web01.yaml.result.md").read_text()
    assert "## web01: succeeded with 2 warnings" in text
    assert "the clock is off \\[clock-off\\]" in text and "key-without-effect" in text
    assert "web01 succeeded with 2 warnings" in house.log


def test_a_failure_is_told_with_what_is_kept(house: House) -> None:
    house.start()
    house.drop("web01.yaml", house.migration("web01", "plan", "start convert", "file 4096", "fail retry"))
    house.lies("failed", "web01.yaml")
    outcome = house.reason("web01.yaml")
    assert (outcome.state, outcome.attempts, outcome.stage) == (State.FAILED, 2, Stage.CONVERT)
    assert [problem.code for problem in outcome.problems] == ["told-to"]
    assert outcome.kept.startswith("working folder kept until") and outcome.cancelled_by == ""


@pytest.mark.parametrize("words", [("plan", "start convert", "wait /nowhere"), ()])
def test_a_cancelled_job_is_told_with_who_did_it(house: House, words: tuple[str, ...]) -> None:
    """While it runs, and while it waits."""
    house.start()
    if not words:
        house.ask("POST", "/v1/queue/pause")
    house.drop("web01.yaml", house.migration("web01", *words))
    state = State.RUNNING if words else State.QUEUED
    house.reaches(1, state)
    if words:
        until(lambda: "stage-finished" in house.kinds(1), "its plan is finished")
    assert house.ask("POST", "/v1/jobs/1/cancel")[0] == 200
    house.lies("failed", "web01.yaml")
    outcome = house.reason("web01.yaml")
    assert (outcome.state, outcome.cancelled_by, outcome.problems) == (State.CANCELLED, "root", ())


def test_a_file_with_several_machines_has_one_outcome(house: House) -> None:
    house.start()
    house.drop("rack.yaml", batch(house, a=("plan", "publish"), b=("fail permanent",), c=("plan",)))
    house.lies("failed", "rack.yaml")
    outcome = house.reason("rack.yaml")
    states = [(machine.vm_name, machine.state) for machine in outcome.machines]
    assert states == [("a", State.SUCCEEDED), ("b", State.FAILED), ("c", State.SUCCEEDED)]
    assert (outcome.job_id, outcome.state) == (outcome.machines[1].job_id, State.FAILED)
    assert len(outcome.machines[0].images) == 1
    assert house.names("failed") == ["rack.yaml", "rack.yaml.reason.json"]


def test_a_retry_that_succeeds_takes_the_outcome_along(house: House) -> None:
    house.start()
    house.drop("web01.yaml", house.migration("web01", "plan", "fail permanent"))
    house.lies("failed", "web01.yaml")
    (house.root / "web01.vmdk").write_text(f"plan\nwait {house.root}/go")
    assert house.ask("POST", "/v1/jobs/1/retry")[0] == 200
    until(lambda: not house.names("failed"), "the file is in active/ again")
    assert len(house.names("active")) == 1
    (house.root / "go").touch()
    house.lies("done", "web01.yaml")
    assert house.result("web01.yaml").machines[0].attempts == 2
    assert house.names("failed") == house.names("active") == []
    assert house.names("done") == ["web01.yaml", "web01.yaml.result.json", "web01.yaml.result.md"]
    assert len(house.jobs()) == 1


def test_a_retry_that_fails_again_is_told_anew(house: House) -> None:
    """Of a machine whose file is on record with another one."""
    house.start()
    house.drop("rack.yaml", batch(house, a=("fail permanent",), b=("fail permanent",)))
    house.lies("failed", "rack.yaml")
    second = next(job for job in house.jobs() if job.vm_name == "b")
    (house.root / "b.vmdk").write_text("plan\nfail permanent other-code")
    assert house.ask("POST", f"/v1/jobs/{second.id}/retry")[0] == 200
    until(lambda: house.job(second.id).attempt == 2 and house.job(second.id).state is State.FAILED, "it failed again")
    house.drop("later.yaml", house.migration("later", "plan"))
    house.lies("done", "later.yaml")
    assert [machine.attempts for machine in house.reason("rack.yaml").machines] == [1, 2]
    assert [machine.problems[0].code for machine in house.reason("rack.yaml").machines] == ["told-to", "other-code"]
    assert house.names("failed") == ["rack.yaml", "rack.yaml.reason.json"]


def test_only_the_submitter_may_read_an_outcome(house: House) -> None:
    prepare(house.spool)
    handle = os.open(house.spool / "incoming", os.O_RDONLY)
    for user in (NOBODY, GAMES):
        acl.grant(handle, acl.AclEntry(acl.USER, WRITE | SEARCH, user))
    os.close(handle)
    for name, text in (
        ("good", house.migration("good", "plan")),
        ("bad", house.migration("bad", "fail permanent")),
        ("no", "a: 1"),
    ):
        os.chown(house.drop(f"{name}.yaml", text), NOBODY, NOBODY)
    house.start()
    for folder, name in (
        ("done", "good.yaml.result.json"),
        ("done", "good.yaml.result.md"),
        ("failed", "bad.yaml.reason.json"),
        ("rejected", "no.yaml.reason.json"),
    ):
        path = house.lies(folder, name)
        assert Person.of(NOBODY).may(READ, path)
        assert not Person.of(NOBODY).may(WRITE, path)
        assert not Person.of(GAMES).may(READ, path)
        assert acl.AclEntry(acl.OWNING_GROUP, 0) in acl.entries(path)


class Killed(BaseException):
    pass


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Lets the daemon die before its nth step; returns the steps so far."""
    steps: list[str] = []
    last = [-1]

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            steps.append(name)
            if len(steps) == last[0] + 1:
                raise Killed
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, step)

    for owner, name in (
        (outcomes, "write_durably"),
        (Path, "rename"),
        (Path, "replace"),
        (Path, "unlink"),
        (Store, "plan_moves"),
        (Store, "enter"),
        (Store, "finish_moves"),
        (Store, "move_spool_files"),
        (Store, "forget_jobs"),
    ):
        counted(owner, name)

    def kill(number: int) -> list[str]:
        steps.clear()
        last[0] = number
        return steps

    return kill


FAILED = ["a.yaml", "a.yaml.reason.json"]
DONE = ["a.yaml", "a.yaml.result.json", "a.yaml.result.md"]


def test_a_death_before_any_step_leaves_nothing_wrong(
    tmp_path: Path, kill_at: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job fails, is tried again and succeeds, while a file of the same name is in the way."""
    monkeypatch.setattr(incoming, "STABLE_SECONDS", 0)
    for number in itertools.count():
        folder = tmp_path / str(number)
        steps = kill_at(-1)
        prepare(folder)
        for taken in ("failed", "done"):
            (folder / taken / "b.yaml").write_text("somebody else's")
        store = Store(f"sqlite:///{folder}/jobs.sqlite3")
        steps = kill_at(number)
        _live(folder, store)
        store.close()
        if len(steps) <= number:
            break
    assert number > 20


def _live(folder: Path, store: Store) -> None:
    told = Problem(code="told-to", message="it failed", hint="Repair it", kind="permanent")
    for name in "ab":
        (folder / "incoming" / f"{name}.yaml").write_text(f"vmdk: /{name}.vmdk\n")
    _scan(folder, store, "incoming", [])
    jobs = [store.claim(datetime.now(UTC)) for _ in range(2)]
    for job in jobs:
        assert job is not None
        store.fail(job.id, job.attempt, (told,), keep_stages=False)
    second = f"b.{next(job.id for job in jobs if job and job.vm_name == 'b')}.yaml"
    failed = [second, f"{second}.reason.json", "b.yaml"]
    _scan(folder, store, "failed", [*FAILED, *failed])
    for job in jobs:
        assert job is not None
        store.retry(job.id, "root")
    _scan(folder, store, "failed", ["b.yaml"])
    for _ in jobs:
        again = store.claim(datetime.now(UTC))
        assert again is not None
        store.succeed(again.id, again.attempt, "")
    _scan(folder, store, "done", [*DONE, second, f"{second}.result.json", f"{second}.result.md", "b.yaml"])
    assert [path.name for path in (folder / "active").iterdir()] == []
    assert [path.name for path in (folder / "failed").iterdir()] == ["b.yaml"]
    assert (folder / "done/b.yaml").read_text() == "somebody else's"
    assert len(store.list()) == 2


def _scan(folder: Path, store: Store, where: str, expected: list[str]) -> None:
    """As the daemon does, which is started again when it dies."""
    spool = Spool(folder, store, Metrics())
    for _ in range(4):
        seen = _outcomes(folder)
        try:
            spool.scan()
        except Killed:
            spool = Spool(folder, store, Metrics())
        _require_accounts(folder, store)
        now = _outcomes(folder)
        assert all(now[path] == seen[path] for path in seen.keys() & now.keys()), "an outcome never changes"
    assert sorted(path.name for path in (folder / where).iterdir()) == sorted(expected)


def _outcomes(folder: Path) -> dict[Path, tuple[int, int]]:
    found = [path for path in folder.glob("*/*.yaml.*") if not path.name.startswith(".")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def _require_accounts(folder: Path, store: Store) -> None:
    """A file outside of incoming/ is on record at any instant: as that of a job, or as one that is being moved."""
    with sqlite3.connect(folder / "jobs.sqlite3") as connection:
        paths = {row[0].removeprefix("retried/") for row in connection.execute("SELECT spool_path FROM jobs") if row[0]}
    moves = [move for kind in MoveKind for move in store.open_moves(kind)]
    known = paths | {str(move.target) for move in moves}
    retried = {f"active/{file.claim}" for file in store.retried()}
    files = [path for name in ("active", "done", "failed", "rejected") for path in (folder / name).glob("*.yaml")]
    lost = {str(path.relative_to(folder)) for path in files if path.read_text() != "somebody else's"} - known - retried
    assert not lost
