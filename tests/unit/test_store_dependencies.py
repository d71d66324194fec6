"""Jobs that wait for others, for a time or for a window, on a real SQLite file."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from hyper2kvmd import start_times
from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.attempts import Unsearched
from hyper2kvmd.jobs.changes import change
from hyper2kvmd.jobs.dependencies import arrange_dependents
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Submission
from hyper2kvmd.jobs.tables import jobs
from hyper2kvmd.model.asked import Migration, StartWindow
from hyper2kvmd.model.jobs import Job, Problem, State, WaitingFor
from hyper2kvmd.uptime import uptime
from tests.support.queue_verbs import content_key

ALICE, BOB, ROOT = (
    Origin(submitter="alice", uid=1000),
    Origin(submitter="bob", uid=1001),
    Origin(submitter="root", uid=0, operator=True),
)
CRASH = Problem(code="worker-crashed", message="the worker died", hint="look at the journal", kind="retry")
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


def submission(name: str, *after: str, origin: Origin = ALICE, batch: str | None = None, **keys: object) -> Submission:
    asked = {"vmdk": f"/{name}.vmdk", "vm_name": name, "after": after, "batch": batch, **keys}
    return Submission(Migration.model_validate(asked), content_key(name, origin.uid, keys), origin, batch=batch)


def add(store: Store, *asked: Submission) -> list[int]:
    return [one.job.id for one in store.submit_file(asked)]


def claim(store: Store) -> Job:
    job = store.claim(now())
    assert job is not None
    return job


def run(store: Store, *, fails: bool = False) -> int:
    job = claim(store)
    if fails:
        store.fail(job.id, job.attempt, (CRASH,), keep_stages=False)
    else:
        store.succeed(job.id, job.attempt, "done")
    return job.id


def facts(store: Store, job_id: int) -> tuple[State, WaitingFor | None]:
    job = store.get(job_id)
    return job.state, job.waiting_for


HELD, OPEN, FREE = (State.HELD, WaitingFor.AFTER), (State.QUEUED, WaitingFor.AFTER), (State.QUEUED, WaitingFor.SLOT)


def test_machines_of_one_file_start_one_after_the_other(store: Store) -> None:
    add(store, submission("web", "db"), submission("db", "storage"), submission("storage"))
    assert [facts(store, number) for number in (1, 2, 3)] == [OPEN, OPEN, FREE]
    assert "waits for db (job 2)" in store.get(1).note
    assert [run(store) for _ in range(3)] == [3, 2, 1]


def test_a_job_is_held_while_what_it_needs_has_failed(store: Store) -> None:
    add(store, submission("web", "db"), submission("db"))
    run(store, fails=True)
    held = store.get(1)
    assert (held.state, held.waiting_for) == HELD
    assert "needs db (job 2), which failed" in held.note
    assert "`h2kvmctl retry 2`" in held.note and "`h2kvmctl release 1`" in held.note
    assert store.claim(now()) is None
    store.retry(2, "root")
    assert facts(store, 1) == OPEN
    assert [run(store), run(store)] == [2, 1]
    assert [event.kind for event in store.events(1)] == ["submitted", "held", "released", "claimed", "succeeded"]


def test_release_starts_a_job_in_spite_of_what_failed(store: Store) -> None:
    add(store, submission("web", "db", "storage"), submission("db"), submission("storage"))
    store.cancel(2, "root")
    assert facts(store, 1) == HELD and "was cancelled" in store.get(1).note
    assert (store.release(1, "root").state, facts(store, 1)) == (State.QUEUED, OPEN)
    assert [run(store), run(store)] == [3, 1]


def test_a_job_that_a_person_holds_stays_held(store: Store) -> None:
    add(store, submission("web", "db"), submission("db"))
    store.hold(1, "root")
    run(store, fails=True)
    held = store.get(1)
    assert (held.state, held.waiting_for) == (State.HELD, WaitingFor.OPERATOR) and "which failed" in held.note
    store.retry(2, "root")
    run(store)
    assert facts(store, 1) == (State.HELD, WaitingFor.OPERATOR) and store.get(1).note == ""
    store.release(1, "root")
    assert run(store) == 1


def test_a_retried_job_waits_again_for_what_it_needs(store: Store) -> None:
    add(store, submission("web", "db"), submission("db"))
    store.cancel(1, "root")
    assert store.retry(1, "root").waiting_for is WaitingFor.AFTER
    store.cancel(1, "root")
    run(store, fails=True)
    assert store.retry(1, "root").state is State.HELD


def test_a_job_that_was_recovered_as_cancelled_holds_others(store: Store) -> None:
    add(store, submission("db"))
    add(store, submission("web", "db"))
    claim(store)
    store.cancel(1, "root")
    store.recover()
    assert facts(store, 2) == HELD


def test_after_names_batches_and_the_newest_job_of_a_vm(store: Store) -> None:
    add(store, submission("a", batch="wave1"), submission("b", batch="wave1"))
    add(store, submission("db", memory=512))
    add(store, submission("db", memory=1024))
    (web,) = add(store, submission("web", "wave1", "db"))
    (late,) = add(store, submission("late", batch="wave1"))
    run(store, fails=False), run(store), run(store, fails=True)
    assert facts(store, web) == OPEN and "waits for db (job 4)" in store.get(web).note
    assert [run(store), run(store), run(store)] == [4, web, late]


def test_what_has_succeeded_already_is_no_obstacle_and_what_failed_already_is(store: Store) -> None:
    add(store, submission("good"))
    add(store, submission("bad"))
    run(store)
    run(store, fails=True)
    assert [facts(store, *add(store, submission(f"after-{name}", name))) for name in ("good", "bad")] == [FREE, HELD]


def test_unknown_and_ambiguous_names_are_refused(store: Store) -> None:
    add(store, submission("both", batch="both"), submission("other", batch="both"))
    for names, code in ((("both", "none", "nobody"), "after-unknown"), (("both",), "after-ambiguous")):
        with pytest.raises(InvalidInput) as refusal:
            add(store, submission("web", *names), submission("web2"))
        assert refusal.value.code == code
    (entered, refused) = store.submit_all([[submission("fine")], [submission("web", "none"), submission("web2")]])
    assert isinstance(entered, list) and isinstance(refused, InvalidInput)
    assert sorted(job.vm_name for job in store.list()) == ["both", "fine", "other"]


def test_jobs_of_others_are_known_to_operators_only(store: Store) -> None:
    add(store, submission("db", origin=BOB))
    with pytest.raises(InvalidInput, match="after names db"):
        add(store, submission("web", "db"))
    (web,) = add(store, submission("web", "db", origin=ROOT))
    assert facts(store, web) == OPEN


def test_an_operators_own_job_comes_first_and_those_of_several_others_are_ambiguous(store: Store) -> None:
    add(store, submission("db", origin=BOB))
    add(store, submission("db", origin=ALICE))
    with pytest.raises(InvalidInput, match="2 submitters") as refusal:
        add(store, submission("web", "db", origin=ROOT))
    assert refusal.value.code == "after-ambiguous"
    (own,) = add(store, submission("db", origin=ROOT))
    add(store, submission("db", origin=ALICE, memory=2048))
    (web,) = add(store, submission("web", "db", origin=ROOT))
    assert f"waits for db (job {own})" in store.get(web).note


def test_a_person_holds_a_job_that_is_held_because_of_another(store: Store) -> None:
    add(store, submission("web", "db"), submission("db"))
    run(store, fails=True)
    held = store.hold(1, "root")
    assert (held.state, held.waiting_for) == (State.HELD, WaitingFor.OPERATOR) and "which failed" in held.note
    with pytest.raises(InvalidInput, match="is held: hold is not possible"):
        store.hold(1, "root")
    store.retry(2, "root")
    run(store)
    assert store.get(1).state is State.HELD
    store.release(1, "root")
    assert run(store) == 1


def test_a_job_that_has_succeeded_is_forgotten_though_others_needed_it(store: Store) -> None:
    add(store, submission("web", "db", "storage"), submission("db"), submission("storage"))
    assert run(store) == 2
    run(store, fails=True)
    assert store.forget(now() + timedelta(days=1)) == 1
    assert facts(store, 1) == HELD and store.get(3).state is State.FAILED
    store.retry(3, "root")
    assert [run(store), run(store)] == [3, 1]


def test_many_jobs_are_arranged_by_a_fixed_number_of_statements(store: Store) -> None:
    add(store, submission("db"))
    add(store, *(submission(f"web{number}", "db") for number in range(50)))
    job = claim(store)
    statements: list[str] = []
    with store.transaction(writes=True) as connection:
        event.listen(connection, "before_cursor_execute", lambda *words: statements.append(words[2]))
        change(connection, (jobs.c.id == job.id,), state=State.FAILED)
        arrange_dependents(connection, job.id)
    assert {facts(store, number) for number in range(2, 52)} == {HELD}
    assert all(store.events(number)[-1].kind == "held" for number in range(2, 52))
    assert len(statements) <= 8


def test_what_an_active_job_needs_is_not_forgotten(store: Store) -> None:
    add(store, submission("web", "db"), submission("db"))
    run(store, fails=True)
    assert store.forget(now() + timedelta(days=1)) == 0 and store.surplus("alice", State.FAILED, 0) == []
    store.forget_jobs([2])
    assert store.get(2).state is State.FAILED
    store.cancel(1, "root")
    assert store.forget(now() + timedelta(days=1)) == 2


def test_a_job_whose_time_has_not_come(store: Store) -> None:
    later = now() + timedelta(hours=1)
    add(store, submission("web", not_before=later))
    add(store, submission("other"))
    job = store.get(1)
    assert (job.waiting_for, job.not_before) == (WaitingFor.TIME, later) and job.note == ""
    assert run(store) == 2 and store.claim(now()) is None
    started = store.claim(later)
    assert started is not None and started.id == 1


def around(moment: datetime, hours: int) -> StartWindow:
    """From that hour, for one hour."""
    first, last = moment + timedelta(hours=hours), moment + timedelta(hours=hours + 1)
    return StartWindow.model_validate({"from": f"{first:%H}:00", "to": f"{last:%H}:00", "timezone": "UTC"})


def test_a_missed_window_means_the_next_one(store: Store) -> None:
    soon = now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)
    add(store, submission("web", window=around(now(), 2)))
    job = store.get(1)
    assert (job.waiting_for, job.not_before) == (WaitingFor.WINDOW, soon) and job.note == ""
    assert store.claim(now()) is None
    assert store.claim(soon + timedelta(hours=1)) is None
    assert store.get(1).not_before == soon + timedelta(days=1)
    started = store.claim(soon + timedelta(days=1, minutes=59))
    assert started is not None
    seconds = (soon + timedelta(days=1, hours=1) - now()).total_seconds()
    store.requeue(1, started.attempt, "no space", keep_stages=True, delay_seconds=seconds)
    assert store.claim(soon + timedelta(days=1, hours=2)) is None
    assert store.get(1).not_before == soon + timedelta(days=2)


def test_many_shut_windows_keep_no_other_job_back(store: Store) -> None:
    closed = around(NOON, 2)
    for number in range(120):
        add(store, submission(f"w{number}", window=closed, priority=9))
    add(store, submission("free"))
    noon = NOON + timedelta(days=40, hours=5)
    with pytest.raises(Unsearched):
        store.claim(noon)
    found = [store.claim(noon) for _ in range(2)]
    assert [job.vm_name for job in found if job] == ["free"]


NAMES = "abcde"


@st.composite
def files(draw: st.DrawFn) -> list[Submission]:
    """Machines of one file that wait for some of those before them."""
    made = []
    for number, name in enumerate(NAMES):
        after = draw(st.sets(st.sampled_from(NAMES[:number]))) if number else set()
        made.append(submission(name, *sorted(after)))
    return draw(st.permutations(made))


STEPS = st.lists(st.tuples(st.sampled_from(["run", "fail", "cancel", "retry", "hold", "release"]), st.integers(1, 5)))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(files(), STEPS)
def test_nothing_starts_before_what_it_needs_has_succeeded(
    asked: list[Submission], steps: list[tuple[str, int]]
) -> None:
    needs = {one.migration.vm_name: set(one.migration.after) for one in asked}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/jobs.sqlite3")
        numbers = dict(zip((one.migration.vm_name for one in asked), add(store, *asked), strict=True))
        names = {number: name for name, number in numbers.items()}
        for step, number in [*steps, *[("run", 0)] * len(NAMES)]:
            if step in ("run", "fail"):
                job = store.claim(now())
                if job is None:
                    continue
                assert all(store.get(numbers[name]).state is State.SUCCEEDED for name in needs[job.vm_name])
                if step == "run":
                    store.succeed(job.id, job.attempt, "done")
                else:
                    store.fail(job.id, job.attempt, (CRASH,), keep_stages=False)
                continue
            before = store.get(number)
            try:
                getattr(store, step)(number, "root")
            except InvalidInput:
                continue
            if step == "release" and before.state is State.HELD:
                broken = {name for name in needs[names[number]] if store.get(numbers[name]).state in BROKEN}
                needs[names[number]] -= broken
        states = {name: store.get(number) for name, number in numbers.items()}
        for name, job in states.items():
            blocked = any(states[other].state is not State.SUCCEEDED for other in needs[name])
            if job.state is State.QUEUED:
                assert blocked and job.waiting_for is WaitingFor.AFTER
        store.close()


BROKEN = (State.FAILED, State.CANCELLED)


def test_a_job_that_is_tried_again_waits_for_its_window_at_once(store: Store) -> None:
    hour = now().astimezone(UTC).hour
    window = {"from": f"{(hour + 23) % 24:02}:00", "to": f"{(hour + 3) % 24:02}:00", "timezone": "UTC"}
    add(store, submission("a", window=window))
    job = claim(store)
    late = now() + timedelta(hours=6)
    assert store.requeue(job.id, 1, "will be retried", keep_stages=True, delay_seconds=60, problems=(CRASH,))
    assert store.get(job.id).waiting_for is WaitingFor.RETRY
    assert (again := store.claim(now(), since_boot=uptime().seconds + 120))
    hours = 6 * 3600
    assert store.requeue(
        job.id, again.attempt, "will be retried", keep_stages=True, delay_seconds=hours, problems=(CRASH,)
    )
    found = store.get(job.id)
    assert (found.waiting_for, found.note) == (WaitingFor.WINDOW, "will be retried")
    assert found.not_before is not None and late < found.not_before <= late + timedelta(hours=24)


def test_a_job_whose_time_zone_the_host_has_lost_is_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (number,) = add(store, submission("a", window={"from": "00:00", "to": "24:00", "timezone": "Mars/Olympus"}))
    held = store.get(number)
    assert (held.state, held.waiting_for) == (State.HELD, WaitingFor.OPERATOR)
    assert "Mars/Olympus, which this host does not have. Install tzdata" in held.note
    assert f"h2kvmctl release {number}" in held.note
    assert store.claim(now()) is None
    assert store.release(number, "root").state is State.HELD
    monkeypatch.setattr(start_times, "ZoneInfo", lambda _: UTC)
    assert store.release(number, "root").state is State.QUEUED
    assert claim(store).id == number


def test_a_queued_job_whose_time_zone_is_lost_is_held_when_its_turn_comes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (number,) = add(store, submission("a", window={"timezone": "Europe/Berlin"}))
    monkeypatch.setattr(start_times, "is_zone", lambda _: False)
    assert store.claim(now()) is None
    assert store.get(number).state is State.HELD
    assert [event.kind for event in store.events(number)] == ["submitted", "held"]
