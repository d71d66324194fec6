"""Which stages and images of a job survive which end, on a real SQLite file."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.disks import Image, Layout
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.results import Artifact, Finished, PublishedDisk, Verdict
from tests.support.benches import plan_for
from tests.support.queue_verbs import CRASH, add, claim, kinds

PLANNED = plan_for((), Layout(tables=()))
IMAGE = Image(disks=(), format="raw", layout=PLANNED.layout)
FINISHED = Finished(plan=PLANNED)


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
