"""Where the files of finished jobs go, while moves on record could not be made yet."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyper2kvmd.daemon import incoming
from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.quota import KEPT
from hyper2kvmd.daemon.spool import Spool
from hyper2kvmd.errors import TryLater
from hyper2kvmd.jobs.moves import MoveKind
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import State


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    yield store
    store.close()


def drop(folder: Path, spool: Spool, text: str, name: str = "web.yaml") -> None:
    (folder / "incoming" / name).write_text(text)
    for _ in range(3):
        spool.scan([name])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(incoming, "STABLE_SECONDS", 0)
    prepare(tmp_path / "spool")
    return tmp_path / "spool"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_place_on_record_is_not_given_to_another_file(folder: Path, store: Store, restarted: bool) -> None:
    spool = Spool(folder, store, Metrics())
    for number in (1, 2):
        drop(folder, spool, f"vmdk: /{number}.vmdk\n")
        store.cancel(number, "root")
        (folder / "failed").rename(folder / "away")
        spool.scan()
        (folder / "away").rename(folder / "failed")
        spool = Spool(folder, store, Metrics()) if restarted else spool
    spool.scan()
    texts = {path.name: path.read_text() for path in (folder / "failed").glob("*.yaml")}
    assert texts == {"web.yaml": "vmdk: /1.vmdk\n", "web.2.yaml": "vmdk: /2.vmdk\n"}
    assert sorted(path.name for path in (folder / "failed").glob("*.json")) == [
        "web.2.yaml.reason.json",
        "web.yaml.reason.json",
    ]


def test_a_place_that_another_file_has_got_is_left_to_it(folder: Path, store: Store) -> None:
    """As after a restore of the database, with a move on record that was made long ago."""
    spool = Spool(folder, store, Metrics())
    drop(folder, spool, "vmdk: /1.vmdk\n")
    store.cancel(1, "root")
    (folder / "failed").rename(folder / "away")
    spool.scan()
    (folder / "away").rename(folder / "failed")
    (folder / "failed" / "web.yaml").write_text("somebody else's")
    spool.scan()
    assert (folder / "failed" / "web.yaml").read_text() == "somebody else's"
    assert (folder / "failed" / "web.1.yaml").read_text() == "vmdk: /1.vmdk\n"
    assert store.open_moves(MoveKind.PUT_AWAY) == [] and store.misplaced() == []


def test_a_removal_that_is_not_on_record_takes_no_later_file_of_that_name(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database did not respond once, and the daemon is started again later."""
    monkeypatch.setitem(KEPT, State.CANCELLED, 1)
    spool = Spool(folder, store, Metrics())
    for number, name in ((1, "web.yaml"), (2, "other.yaml")):
        drop(folder, spool, f"vmdk: /{number}.vmdk\n", name)
        store.cancel(number, "root")
        if number == 2:
            monkeypatch.setattr(store, "finish_moves", silent)
        with suppress(TryLater):
            spool.scan()
    monkeypatch.undo()
    monkeypatch.setattr(incoming, "STABLE_SECONDS", 0)
    assert [path.name for path in (folder / "failed").glob("*.yaml")] == ["other.yaml"]
    drop(folder, spool, "vmdk: /3.vmdk\n", "web.yaml")
    store.cancel(3, "root")
    for one in (spool, Spool(folder, store, Metrics())):
        one.scan()
        assert (folder / "failed" / "web.yaml").read_text() == "vmdk: /3.vmdk\n"
        assert (folder / "failed" / "web.yaml.reason.json").exists()
    assert store.open_moves(MoveKind.REMOVE) == []


def silent(numbers: Collection[int]) -> None:
    if numbers:
        raise TryLater("database-unavailable", "the database does not respond", hint="Wait")


def test_the_place_of_a_retried_file_is_free_when_that_is_on_record(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the file that gets it is taken for the retried one, and replaces it."""
    spool, fsync = Spool(folder, store, Metrics()), os.fsync
    for number in (1, 2):
        drop(folder, spool, f"vmdk: /{number}.vmdk\n")
        store.cancel(number, "root")
        spool.scan() if number == 1 else store.retry(1, "root")

    def failing(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink() == folder / "failed":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    spool.scan()
    monkeypatch.setattr(os, "fsync", fsync)
    spool.scan()
    (active,) = (folder / "active").iterdir()
    assert active.read_text() == "vmdk: /1.vmdk\n"
    assert (folder / "failed" / "web.2.yaml").read_text() == "vmdk: /2.vmdk\n"
    assert (folder / "failed" / "web.2.yaml.reason.json").exists()


def test_a_job_is_not_forgotten_before_its_file_is_put_away(folder: Path, store: Store) -> None:
    """Else the file becomes a job again, and runs twice."""
    spool = Spool(folder, store, Metrics())
    drop(folder, spool, "vmdk: /1.vmdk\n")
    store.cancel(1, "root")
    later = datetime.now(UTC) + timedelta(days=1)
    assert store.forget(later) == 0
    drop(folder, Spool(folder, store, Metrics()), "vmdk: /2.vmdk\n")
    assert [job.id for job in store.list()] == [2, 1]
    assert store.forget(later, dry_run=True) == store.forget(later) == 1
    assert [job.id for job in store.list()] == [2]
