"""Jobs made to fill the database: what a job leaves there is bounded, and goes when nobody can use it."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hyper2kvmd import progress, worker
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.jobs import changes
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model import guest as model
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Checksum, FileIdentity, Image, Layout, LocalFile, SourceDisk, StoredFile, Volume
from hyper2kvmd.model.guest import Change, Guest
from hyper2kvmd.model.jobs import Problem, Stage
from hyper2kvmd.model.results import (
    RECORD_LIMIT,
    Artifact,
    Finished,
    PublishedDisk,
    Verdict,
    recorded,
)
from hyper2kvmd.progress import Context, Event, Warned
from tests.support.attempts import Attempts
from tests.support.benches import plan_for
from tests.support.guest_on_disk import ROOT_UUID, migration, partition, put, repaired
from tests.support.house import House, until

FAULT = Problem(code="worker-crashed", message="the worker died", hint="look at the journal", kind="retry")


def disk_of(number: int, directory: Path) -> SourceDisk:
    files = tuple(
        FileIdentity(path=directory / f"e{n}", device=2049, inode=1 << 40, size=512, mtime_ns=1 << 60, ctime_ns=1 << 60)
        for n in range(number)
    )
    at = LocalFile(path=directory / "d.vmdk")
    return SourceDisk(at=at, subformat="flat", virtual_size=512, data_bytes=512, files=files)


PLAN = plan_for((disk_of(50, Path("/srv")),), Layout(tables=("none",), volumes=(Volume(kind="disk", name="d"),) * 50))
IMAGE = Image(disks=(), format="raw", layout=PLAN.layout, evidence=("the same",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    store.submit(Migration(vmdk=(Path("/a.vmdk"),), vm_name="a"), content_key="a", origin=Origin())
    store.claim(datetime.now(UTC))
    yield store
    store.close()


def cancelled_in_the_queue(store: Store) -> None:
    store.recover()
    store.cancel(1, "root")
    store.forget_finished_stages(1)


ENDS: dict[str, Callable[[Store], object]] = {
    "cancelled in the queue": cancelled_in_the_queue,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_what_a_stage_made_is_forgotten_with_its_use(store: Store, end: Callable[[Store], object]) -> None:
    store.finish_stage(1, 1, Stage.PLAN, 0.1, PLAN)
    end(store)
    assert not store.get(1).state.active
    assert store.finished_stages(1) == Finished()


def test_a_job_that_has_succeeded_keeps_little(store: Store) -> None:
    """What its outcome shows: no attempt goes on from it."""
    guest = Guest(hostname="web01", changes=(Change(fix="fstab", path="/etc/fstab", summary="s", diff="d" * 9999),))
    for stage, product in Finished(plan=PLAN, image=IMAGE, guest=guest).products().items():
        store.finish_stage(1, 1, stage, 0.1, product)
    assert store.succeed(1, 1, "")
    assert len(recorded(store.finished_stages(1))) < 2000


def test_a_published_job_keeps_little(store: Store) -> None:
    """A retry of it goes on with `register`."""
    published = PublishedDisk(path=Path("/o/a.raw"), file_bytes=1)
    artifact = Artifact(
        disks=(published,), format="raw", report_json=Path("/o/a.json"), report_markdown=Path("/o/a.md")
    )
    guest = Guest(hostname="web01", changes=(Change(fix="fstab", path="/etc/fstab", summary="s", diff="d" * 9999),))
    verdict = Verdict(level="check", evidence=("size",))
    finished = Finished(plan=PLAN, image=IMAGE, guest=guest, verdict=verdict, artifact=artifact)
    for stage, product in finished.products().items():
        store.finish_stage(1, 1, stage, 0.1, product)
    assert store.fail(1, 1, (FAULT,), keep_stages=False)
    kept = store.finished_stages(1)
    assert (kept.plan and kept.plan.machine, kept.artifact) == (PLAN.machine, artifact)
    assert kept.guest and kept.guest.hostname == "web01"
    assert len(recorded(kept)) < 2000


def test_a_published_image_that_is_gone_by_now(tmp_path: Path) -> None:
    """The job starts over: what was kept is no image that could be published."""
    job = Attempts(tmp_path)
    assert job.run()[1] == ""
    job.order = job.order.with_changes(finished=job.order.finished.without_content())
    assert job.run() == ([], ""), "nothing is left to do"
    shutil.rmtree(job.out)
    assert job.run()[0][:2] == [Stage.PLAN, Stage.CONVERT]
    assert job.result.stat().st_size == job.source.stat().st_size


# ---------------------------------------------------------------- the daemon


def products(house: House) -> int:
    with closing(sqlite3.connect(house.root / "state/jobs.sqlite3")) as database:
        return int(database.execute("SELECT count(*) FROM stages").fetchone()[0])


def planned_and_left_behind(house: House) -> None:
    """The daemon dies while a job runs that has a plan and no image."""
    house.drop("a.yaml", house.migration("a", "deaf", "plan", f"wait {house.root}/go"))
    house.start()
    until(lambda: products(house) == 1, "the job is planned")


def test_a_job_that_is_cancelled_in_the_queue(house: House) -> None:
    planned_and_left_behind(house)
    house.ask("POST", "/v1/queue/pause")
    house.stop(signal.SIGKILL)
    house.start()
    assert products(house) == 1
    assert house.ask("POST", "/v1/jobs/1/cancel")[0] == 200
    assert products(house) == 0


def test_a_job_whose_cancellation_the_daemon_did_not_survive(house: House) -> None:
    planned_and_left_behind(house)
    house.ask("POST", "/v1/jobs/1/cancel")
    house.stop(signal.SIGKILL)
    house.start()
    assert house.job(1).state == "cancelled"
    assert products(house) == 0


# ---------------------------------------------------------------- the size of a product


def test_a_disk_of_too_many_details(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails in `plan`, and nothing of it goes on record."""
    monkeypatch.setattr(worker, "RECORD_LIMIT", 100)
    job = Attempts(tmp_path)
    assert job.run() == ([Stage.PLAN], "source-too-complex")
    assert job.order.finished == Finished()


def test_a_directory_is_on_record_once() -> None:
    """A thousand extents of one disk in a directory with a long name."""
    directory = Path("/" + "/".join(["d" * 200] * 19))
    plan = plan_for((disk_of(5000, directory),), Layout(tables=()))
    text = recorded(plan)
    assert len(text) < RECORD_LIMIT < len(plan.model_dump_json())
    assert type(plan).model_validate_json(text) == plan


def test_checksums_are_not_on_record() -> None:
    """A manifest may list thousands of files of one disk."""
    plan = plan_for((disk_of(1, Path("/srv")),), Layout(tables=()))
    (disk,), (source,) = plan.machine.disks, plan.disks
    assert isinstance(disk.at, LocalFile)
    of = StoredFile(at=disk.at, identity=source.files[0])
    one = Checksum(of=of, algorithm="sha256", digest="0" * 64, manifest="web01.mf")
    sealed = plan.machine.with_changes(disks=(disk.with_changes(checksums=(one,) * 5000),))
    planned = plan.with_changes(machine=sealed)
    assert recorded(planned) == recorded(plan)
    assert len(planned.model_dump_json()) > RECORD_LIMIT


# ---------------------------------------------------------------- words


def test_events_without_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that waits for space is tried again and again."""
    monkeypatch.setattr(changes, "EVENTS_KEPT", 10)
    for attempt in range(1, 20):
        store.record_warning(1, attempt, "a warning")
        store.requeue(1, attempt, "no space", keep_stages=False)
        store.claim(datetime.now(UTC))
    kinds = [event.kind for event in store.events(1)]
    assert len(kinds) == 11
    assert (kinds[0], kinds[-1]) == ("submitted", "claimed")


def heard(say: Callable[[Context], object]) -> list[str]:
    events: list[Event] = []
    say(Context(events.append, lambda _plan: None))
    return [event.message for event in events if isinstance(event, Warned)]


def test_warnings_without_end() -> None:
    def warn(ctx: Context) -> None:
        for number in range(1000):
            ctx.warn(str(number))

    warnings = heard(warn)
    assert len(warnings) == progress.MAX_WARNINGS + 1
    assert "more warnings" in warnings[-1]


def test_a_long_warning() -> None:
    (warning,) = heard(lambda ctx: ctx.warn("w" * 100_000))
    assert len(warning) == progress.MAX_WARNING and warning.endswith("(shortened)")


def test_a_long_problem() -> None:
    told = progress.problem(MigrationFailed("output-exists", "m" * 100_000, hint="h" * 100_000))
    assert len(told.message) == len(told.hint) == progress.MAX_TEXT


def test_a_guest_of_many_words(tmp_path: Path) -> None:
    """Long files, many that are edited, many entries that match nothing."""
    absent = "".join(f"/dev/sdz{number} /mnt/{number} ext4 defaults 0 0\n" for number in range(3000))
    put(tmp_path, "etc/fstab", f"/dev/sda1 / ext4 defaults 0 1\n{absent}")
    (tmp_path / "usr").mkdir()
    for number in range(20):
        put(tmp_path, f"boot/loader/entries/{number}.conf", f"title a\noptions root=/dev/sda1 {'q' * 20_000}\n")
    root = partition(1, uuid=ROOT_UUID)
    asked = migration(regen_initramfs=False)
    guest = repaired({"partition 1": tmp_path}, Layout(tables=("gpt",), volumes=(root,)), asked)
    assert model.FSTAB_KEPT < len(guest.fstab_before) < model.FSTAB_KEPT + 100
    assert len(guest.changes) > 20
    assert model.DIFFS_KEPT / 2 < sum(len(one.diff) for one in guest.changes) < model.DIFFS_KEPT + 100 * 100
    assert len(guest.warnings) == model.WARNINGS_KEPT + 1 and "more warnings" in guest.warnings[-1]
    assert len(recorded(guest)) < RECORD_LIMIT
