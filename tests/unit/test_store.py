"""The queue's verbs on a real SQLite file: order, fences, history, what survives which end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.cards import MAX_CONCERNS, NEWEST
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission
from hyper2kvmd.jobs.tables import MISPLACED
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image, Layout
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Counts, Job, JobFilter, PastRate, Problem, Stage, State
from hyper2kvmd.model.results import Artifact, Finished, PublishedDisk, Verdict
from tests.support.benches import plan_for

PLANNED = plan_for((), Layout(tables=()))
IMAGE = Image(disks=(), format="raw", layout=PLANNED.layout)
FINISHED = Finished(plan=PLANNED)
CRASH = Problem(code="worker-crashed", message="the worker died", hint="look at the journal", kind="retry")


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    yield store
    store.close()


def add(store: Store, name: str, priority: int = 5) -> Job:
    migration = Migration(vmdk=(Path(f"/images/{name}.vmdk"),), vm_name=name, priority=priority)
    return store.submit(migration, content_key=name, origin=Origin(submitter="root")).job


def claim(store: Store) -> Job:
    job = store.claim(now())
    assert job is not None
    return job


def kinds(store: Store, job_id: int) -> list[str]:
    return [event.kind for event in store.events(job_id)]


def test_a_job_comes_back_as_it_went_in(store: Store) -> None:
    job = add(store, "web01", priority=7)
    again = store.get(job.id)
    assert again == job
    assert again.migration is not None and again.migration.vmdk == (Path("/images/web01.vmdk"),)
    assert again.state is State.QUEUED and again.created.tzinfo is not None


def test_a_spool_file_is_on_record_once(store: Store) -> None:
    migration, origin = Migration(vmdk=(Path("/a.vmdk"),), vm_name="a"), Origin(claim="1-a.yaml")
    job = store.submit(migration, content_key="k", origin=origin).job
    with pytest.raises(IntegrityError):
        store.submit(migration, content_key="l", origin=origin)
    assert store.get(job.id) == job and store.claim(now()) is not None and store.claim(now()) is None


def test_highest_priority_first_then_oldest(store: Store) -> None:
    for name, priority in (("a", 5), ("b", 9), ("c", 5), ("d", 9)):
        add(store, name, priority)
    assert [claim(store).vm_name for _ in range(4)] == ["b", "d", "a", "c"]
    assert store.claim(now()) is None


def test_same_content_is_one_job_while_active_and_a_new_one_after(store: Store) -> None:
    migration = Migration(vmdk=(Path("/a.vmdk"),), vm_name="a")
    first = store.submit(migration, content_key="k", origin=Origin())
    second = store.submit(migration, content_key="k", origin=Origin(name="again.yaml"))
    assert (first.new, second.new, second.job.id) == (True, False, first.job.id)
    job = claim(store)
    assert not store.submit(migration, content_key="k", origin=Origin()).new
    assert store.succeed(job.id, job.attempt, "done")
    third = store.submit(migration, content_key="k", origin=Origin())
    assert third.new and third.job.id != job.id
    assert kinds(store, job.id) == ["submitted", "duplicate", "claimed", "duplicate", "succeeded"]


def test_of_many_duplicates_in_a_row_one_is_in_the_history(store: Store) -> None:
    job = add(store, "a")
    for _ in range(5):
        add(store, "a")
    claim(store)
    add(store, "a")
    assert kinds(store, job.id) == ["submitted", "duplicate", "claimed", "duplicate"]


def machines(content: str, names: str, claim: str = "") -> list[Submission]:
    """One for each letter; the first one has the file."""
    claim = claim or content
    first = Origin(submitter="root", claim=claim, path=f"active/{claim}", spool_group=claim)
    return [
        Submission(
            Migration(vmdk=(Path(f"/{name}.vmdk"),), vm_name=name),
            f"{content}{name}",
            Origin(submitter="root", spool_group=claim) if number else first,
        )
        for number, name in enumerate(names)
    ]


def test_a_batch_is_queued_as_a_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    first, second = store.submit_all([machines("x", "ab"), machines("y", "c")])
    assert isinstance(first, list) and isinstance(second, list)
    assert [(one.job.vm_name, one.new) for one in (*first, *second)] == [("a", True), ("b", True), ("c", True)]
    assert {name: [job.vm_name for job in found] for name, found in store.spool_groups(["x", "z"]).items()} == {
        "x": ["a", "b"]
    }
    again = store.submit_file(machines("x", "ab", "x2"))
    assert [(one.job.id, one.new) for one in again] == [(1, False), (2, False)]
    job = claim(store)
    store.succeed(job.id, job.attempt, "done")
    partly = store.submit_file(machines("x", "ab", "x3"))
    assert [(one.job.vm_name, one.new) for one in partly] == [("b", False)]
    assert len(store.list()) == 3
    assert kinds(store, 2)[-1] == "duplicate"


def test_a_batch_that_is_cut_off_leaves_nothing(store: Store) -> None:
    one, two, three = machines("x", "abc")
    unwritable = replace(two, origin=replace(two.origin, name="\udcff"))
    with pytest.raises(UnicodeEncodeError):
        store.submit_all([machines("w", "z"), [one, three, unwritable]])
    assert store.list() == [] and store.known_claims(["x"]) == frozenset()


def test_a_batch_is_forgotten_when_it_is_over(store: Store) -> None:
    store.submit_all([machines("x", "ab")])
    first = claim(store)
    store.succeed(first.id, first.attempt, "done")
    later = now() + timedelta(days=1)
    assert store.forget(later) == 0 and store.surplus("root", State.SUCCEEDED, 0) == []
    second = claim(store)
    store.succeed(second.id, second.attempt, "done")
    assert [job_id for job_id, _ in store.surplus("root", State.SUCCEEDED, 0)] == [2, 1]
    assert store.forget(later) == 2


def test_many_at_once_are_what_each_would_have_been(store: Store) -> None:
    def submission(name: str, key: str) -> Submission:
        return Submission(Migration(vmdk=(Path("/a.vmdk"),), vm_name=name), key, Origin(claim=name))

    entered = store.submit_all([[submission(*each)] for each in ("a1", "b2", "c1")])
    results = [one for file in entered if isinstance(file, list) for one in file]
    assert [(one.job.vm_name, one.new) for one in results] == [("a", True), ("b", True), ("a", False)]
    assert store.known_claims(["a", "b", "c"]) == {"a", "b"}
    assert store.submit_all([]) == []
    assert store.reject_all([]) == []


def test_spool_files_in_the_wrong_place_are_found_by_an_index(store: Store, tmp_path: Path) -> None:
    origins = [Origin(submitter="root", claim=str(number), path=f"active/{number}") for number in range(3)]
    for origin in origins:
        store.submit(Migration(vmdk=(Path("/a"),), vm_name="a"), content_key=str(origin.claim), origin=origin)
    assert store.misplaced() == []
    store.cancel(2, "root")
    assert [(one.job.id, one.path) for one in store.misplaced()] == [(2, "active/1")]
    store.move_spool_files({2: "failed/a.yaml"})
    assert store.misplaced() == []
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        query = f"SELECT * FROM jobs WHERE {MISPLACED} ORDER BY id"  # noqa: S608 - no word of it is a stranger's
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert "jobs_misplaced" in str(plan)


def test_the_oldest_jobs_of_a_submitter_are_forgotten_but_none_that_is_active(store: Store) -> None:
    store.reject_all([Refusal("c", (CRASH,), Origin(submitter="alice", path=f"rejected/{n}")) for n in range(4)])
    store.reject_all([Refusal("c", (CRASH,), Origin(submitter="bob")) for _ in range(4)])
    assert store.surplus("alice", State.REJECTED, 2) == [(2, "rejected/1"), (1, "rejected/0")]
    active = add(store, "a")
    store.forget_jobs([1, 2, active.id])
    assert sorted(job.id for job in store.list()) == [3, 4, 5, 6, 7, 8, active.id]


def test_not_before_is_honoured_and_wake_lifts_it(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    assert store.requeue(job.id, 1, "later", keep_stages=True, not_before=now() + timedelta(hours=1))
    assert store.claim(now()) is None
    assert store.claim(now() + timedelta(hours=2)) is not None
    assert store.requeue(job.id, 2, "later", keep_stages=True, not_before=now() + timedelta(hours=1))
    store.wake([job.id])
    assert claim(store).attempt == 3


def test_every_write_of_an_older_attempt_is_fenced_off(store: Store) -> None:
    add(store, "a")
    old = claim(store)
    assert store.requeue(old.id, old.attempt, "lost", keep_stages=True)
    new = claim(store)
    before = store.get(new.id), store.events(new.id)
    for attempt in (old.attempt, new.attempt + 1):
        assert not store.start_stage(old.id, attempt, Stage.PLAN)
        assert not store.finish_stage(old.id, attempt, Stage.PLAN, 1.0, PLANNED)
        assert not store.record_progress(old.id, attempt, 0.5)
        assert not store.record_warning(old.id, attempt, "w")
        assert not store.record_machine(old.id, attempt, ["m"])
        assert not store.record_conversion(old.id, attempt, 1, 1.0)
        assert not store.reserve(old.id, attempt, 5)
        assert not store.succeed(old.id, attempt, "n")
        assert not store.fail(old.id, attempt, (CRASH,), keep_stages=False)
        assert not store.requeue(old.id, attempt, "n", keep_stages=True)
        assert not store.finish_cancelled(old.id, attempt, keep_stages=False)
    assert (store.get(new.id), store.events(new.id)) == before
    assert store.finished_stages(new.id) == Finished()
    assert store.succeed(new.id, new.attempt, "n")
    assert not store.start_stage(new.id, new.attempt, Stage.PLAN)


def test_finished_stages_are_kept_or_forgotten(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    assert store.finish_stage(job.id, 1, Stage.PLAN, 0.1, PLANNED)
    assert store.finish_stage(job.id, 1, Stage.CONVERT, 0.1, IMAGE)
    assert store.finished_stages(job.id) == Finished(plan=PLANNED, image=IMAGE)
    store.requeue(job.id, 1, "", keep_stages=True)
    assert claim(store).attempt == 2
    assert store.finished_stages(job.id).image == IMAGE
    store.requeue(job.id, 2, "", keep_stages=False)
    assert store.finished_stages(job.id) == Finished()


def test_a_stage_that_begins_again_makes_all_after_it_void(store: Store) -> None:
    """An attempt that plans anew and dies must not leave the image of the plan before to the next one."""
    add(store, "a")
    job = claim(store)
    store.finish_stage(job.id, 1, Stage.PLAN, 0.1, PLANNED)
    store.finish_stage(job.id, 1, Stage.CONVERT, 0.1, IMAGE)
    store.requeue(job.id, 1, "", keep_stages=True)
    assert claim(store).attempt == 2
    assert store.start_stage(job.id, 2, Stage.CONVERT)
    assert store.finished_stages(job.id) == Finished(plan=PLANNED)
    assert store.start_stage(job.id, 2, Stage.PLAN)
    assert store.finished_stages(job.id) == Finished()


def test_what_this_version_cannot_read_is_not_finished(store: Store) -> None:
    """After a downgrade the job starts over; the daemon must not stop for it."""
    add(store, "a")
    job = claim(store)
    store.finish_stage(job.id, 1, Stage.CONVERT, 0.1, IMAGE)
    assert store.finished_stages(job.id) == Finished()


def test_a_folder_that_is_gone_takes_its_stages_along(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    store.finish_stage(job.id, 1, Stage.PLAN, 0.1, PLANNED)
    store.note_removed_folder(job.id, "of a running job")
    assert store.finished_stages(job.id) == FINISHED and store.get(job.id).note == ""
    store.fail(job.id, 1, (CRASH,), keep_stages=True, note="kept")
    assert store.finished_stages(job.id) == FINISHED and store.get(job.id).note == "kept"
    store.note_removed_folder(job.id, "too old")
    store.note_removed_folder(job.id + 1, "of nobody")
    assert store.finished_stages(job.id) == Finished() and "too old" in store.get(job.id).note
    assert kinds(store, job.id)[-1] == "folder-removed"


def test_a_job_cancelled_in_the_queue_keeps_its_stages(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    store.finish_stage(job.id, 1, Stage.PLAN, 0.1, PLANNED)
    store.requeue(job.id, 1, "", keep_stages=True)
    store.cancel(job.id, "root")
    assert store.finished_stages(job.id) == FINISHED


def test_what_was_published_is_never_forgotten(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    artifact = Artifact(
        disks=(PublishedDisk(path=Path("/o/a.qcow2"), file_bytes=1),),
        format="qcow2",
        report_json=Path("/o/a.json"),
        report_markdown=Path("/o/a.md"),
    )
    all_of_them = Finished(
        plan=PLANNED, image=IMAGE, guest=Guest(), verdict=Verdict(level="check", evidence=("size",)), artifact=artifact
    )
    for stage, product in zip(Stage, (product for _, product in all_of_them), strict=True):
        if product is not None:
            store.finish_stage(job.id, 1, stage, 0.1, product)
    assert store.fail(job.id, 1, (CRASH,), keep_stages=False)
    assert store.finished_stages(job.id) == all_of_them


def test_failures_count_failed_tries_only_and_a_retry_by_hand_begins_anew(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    store.requeue(job.id, 1, "interrupted", keep_stages=False)
    assert store.failures(job.id) == 0
    claim(store)
    store.requeue(job.id, 2, "crashed", keep_stages=True, problems=(CRASH,))
    assert store.failures(job.id) == 1
    claim(store)
    store.fail(job.id, 3, (CRASH,), keep_stages=True)
    failed = store.get(job.id)
    assert failed.state is State.FAILED and failed.problems == (CRASH,) and failed.finished is not None
    assert store.failures(job.id) == 2
    assert store.retry(job.id, "root").state is State.QUEUED
    assert store.failures(job.id) == 0
    assert claim(store).attempt == 4


def test_retry_is_refused_while_the_same_content_is_active(store: Store) -> None:
    old = add(store, "a")
    store.cancel(old.id, "root")
    add(store, "a")
    with pytest.raises(InvalidInput, match="active as another job") as refusal:
        store.retry(old.id, "root")
    assert refusal.value.code == "job-duplicate"


def test_hold_release_and_their_refusals(store: Store) -> None:
    job = add(store, "a")
    assert store.hold(job.id, "root").state is State.HELD
    assert store.claim(now()) is None
    with pytest.raises(InvalidInput, match="is held"):
        store.hold(job.id, "root")
    assert store.release(job.id, "root").state is State.QUEUED
    claim(store)
    with pytest.raises(InvalidInput) as refusal:
        store.release(job.id, "root")
    assert refusal.value.code == "job-state"
    with pytest.raises(InvalidInput) as unknown:
        store.hold(99, "root")
    assert unknown.value.code == "job-unknown"


def test_cancel_ends_a_waiting_job_and_marks_a_running_one(store: Store) -> None:
    waiting = add(store, "a")
    assert store.cancel(waiting.id, "root").state is State.CANCELLED
    running = add(store, "b")
    claim(store)
    assert store.cancel(running.id, "root").state is State.RUNNING
    assert store.finish_cancelled(running.id, 1, keep_stages=False)
    assert store.get(running.id).state is State.CANCELLED
    assert kinds(store, running.id) == ["submitted", "claimed", "cancel-requested", "cancelled"]


def test_recover_requeues_what_a_dead_daemon_left_but_keeps_a_cancel(store: Store) -> None:
    add(store, "a")
    add(store, "b")
    kept, cancelled = claim(store), claim(store)
    store.finish_stage(kept.id, 1, Stage.PLAN, 0.1, PLANNED)
    store.reserve(kept.id, 1, 100)
    store.cancel(cancelled.id, "root")
    assert {job.id for job in store.recover()} == {kept.id, cancelled.id}
    again = store.get(kept.id)
    assert (again.state, again.reserved_bytes, store.failures(kept.id)) == (State.QUEUED, 0, 0)
    assert store.finished_stages(kept.id) == FINISHED
    assert store.get(cancelled.id).state is State.CANCELLED
    assert not store.succeed(kept.id, 1, "a ghost")


def test_counts_active_ids_and_oldest(store: Store) -> None:
    assert store.overview() == (Counts(), None)
    first, second = add(store, "a"), add(store, "b")
    store.hold(first.id, "root")
    store.reject_all([Refusal("c", (CRASH,), Origin())])
    counts, oldest = store.overview()
    assert (counts.queued, counts.held, counts.rejected, counts.running) == (1, 1, 1, 0)
    assert store.active_ids() == {first.id, second.id}
    assert oldest == second.created
    assert [job.id for job in store.list(JobFilter(states=(State.HELD,)))] == [first.id]


def test_the_pause_outlives_the_program(store: Store, tmp_path: Path) -> None:
    assert not store.paused()
    store.set_paused(True)
    store.close()
    again = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    assert again.paused()
    again.close()


def test_a_job_that_succeeds_shows_how_many_different_warnings_it_has(store: Store) -> None:
    other, job = add(store, "web02", priority=1), add(store, "web01")
    claimed = claim(store)
    for message in ("no drivers", "no drivers", "an old kernel"):
        assert store.record_warning(claimed.id, claimed.attempt, message)
    store.succeed(claimed.id, claimed.attempt, "done")
    assert (store.get(job.id).warnings, store.get(other.id).warnings) == (2, 0)
    assert {one.id: one.warnings for one in store.list()} == {job.id: 2, other.id: 0}


def test_the_past_rate_is_the_median_of_the_last_conversions(store: Store) -> None:
    assert store.past_rate() is None
    for seconds in (1000, *range(1, 11)):
        job = add(store, f"vm{seconds}")
        assert claim(store) == store.get(job.id)
        assert store.record_conversion(job.id, 1, 2520, 1.0)
        assert store.record_conversion(job.id, 1, 2520, float(seconds))
        assert store.succeed(job.id, 1, "")
    assert store.past_rate() == PastRate(bytes_per_second=(2520 / 5 + 2520 / 6) / 2, conversions=10)
    store.forget(now() + timedelta(seconds=1))
    assert store.past_rate() is None


MAC, OTHER_MAC = "00:50:56:00:00:01", "00:50:56:00:00:02"


def with_card(store: Store, name: str, *macs: str, **keys: object) -> list[str]:
    """A running job for a machine with these addresses; the machines that have one of them."""
    asked = {"vmdk": f"/images/{name}.vmdk", "vm_name": name, **keys}
    job = store.submit(Migration.model_validate(asked), content_key=f"{name}{keys}{macs}", origin=Origin()).job
    running = store.claim(now())
    assert running is not None and running.id == job.id
    concerns = store.record_macs(job.id, 1, macs)
    warned = [event.message for event in store.events(job.id) if event.kind == "warned"]
    assert sorted(warned) == sorted(map(str, concerns))
    return [one.message.split("so has ")[1].split(" ")[0] for one in concerns]


def test_a_mac_address_of_another_jobs_machine_is_a_concern(store: Store) -> None:
    assert with_card(store, "first", MAC, MAC) == []
    assert with_card(store, "second", OTHER_MAC, MAC) == ["first"]
    assert with_card(store, "third", MAC) == ["second", "first"]
    assert store.record_macs(1, 1, [OTHER_MAC])[0].code == "mac-in-other-job"
    assert with_card(store, "fourth", MAC) == ["third", "second"]


@pytest.mark.parametrize("keys", [{"target": "proxmox"}, {"libvirt_uri": "qemu+ssh://other/system"}])
def test_another_target_may_have_the_same_mac_address(store: Store, keys: dict[str, object]) -> None:
    with_card(store, "first", MAC)
    assert with_card(store, "second", MAC, **keys) == []
    assert with_card(store, "third", MAC, **keys) == ["second"]


def test_the_same_machine_may_be_migrated_again(store: Store) -> None:
    with_card(store, "web01", MAC)
    assert with_card(store, "web01", MAC, memory=512) == []


def test_a_dry_run_and_a_failed_job_have_no_machine(store: Store) -> None:
    assert with_card(store, "dry", MAC, dry_run=True) == []
    assert with_card(store, "failed", MAC) == []
    store.fail(2, 1, [CRASH], keep_stages=False)
    assert with_card(store, "third", MAC) == []
    store.succeed(3, 1, "")
    assert with_card(store, "fourth", MAC, dry_run=True) == ["third"]


def recorded_cards(store: Store, tmp_path: Path) -> list[tuple[int, str]]:
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        return connection.execute("SELECT job_id, mac FROM cards ORDER BY job_id").fetchall()


def test_the_cards_of_a_job_that_ended_without_a_machine_are_deleted(store: Store, tmp_path: Path) -> None:
    for name in ("succeeded", "failed", "cancelled", "waiting", "dead"):
        with_card(store, name, MAC)
    assert len(recorded_cards(store, tmp_path)) == 5
    store.succeed(1, 1, "")
    store.fail(2, 1, [CRASH], keep_stages=True)
    store.finish_cancelled(3, 1, keep_stages=True)
    store.requeue(4, 1, "later", keep_stages=True)
    store.cancel(4, "test")
    store.cancel(5, "test")
    store.recover()
    assert recorded_cards(store, tmp_path) == [(1, MAC)]


def test_a_dry_run_forgets_the_cards_of_an_earlier_attempt(store: Store, tmp_path: Path) -> None:
    with_card(store, "dry", MAC, dry_run=True)
    assert recorded_cards(store, tmp_path) == []


def test_the_search_for_an_address_reads_a_bounded_number_of_jobs(store: Store, tmp_path: Path) -> None:
    """By an index, and the newest ones only: all other writers wait for this transaction."""
    with_card(store, "oldest", MAC)
    with_card(store, "other", OTHER_MAC)
    for number in range(NEWEST):
        with_card(store, "same", MAC, memory=512 + number)
    assert with_card(store, "same", MAC) == []
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        query = "SELECT mac, job_id FROM cards WHERE mac = ? AND place = ? AND job_id != 1 ORDER BY job_id DESC LIMIT 1"
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", (MAC, "qemu")))
    assert "ix_cards_mac_place_job_id" in plan and "TEMP B-TREE" not in plan
    assert with_card(store, "many", OTHER_MAC, MAC) == ["same"] * MAX_CONCERNS


def test_a_forgotten_job_has_no_machine_and_an_older_attempt_says_nothing(store: Store) -> None:
    with_card(store, "first", MAC)
    store.succeed(1, 1, "")
    assert store.forget(now() + timedelta(days=1)) == 1
    assert with_card(store, "second", MAC) == []
    assert store.record_macs(2, 0, [OTHER_MAC]) == ()
    assert with_card(store, "third", OTHER_MAC) == []
