"""Jobs whose writes found no space: how long they pause, what they need then, and whose folders go for them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from pathlib import Path

import pytest

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.kept import KeptFolder, place_of, sufficient
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.room import LONGEST_FULL_SECONDS, Request, Room
from hyper2kvmd.daemon.space import LEAST_GROWTH, Demand, Shortage, Space
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import WaitingFor
from hyper2kvmd.model.orders import FileSystem, Order
from tests.support.queue_verbs import add, kinds, now


def test_a_full_quota_is_tried_again_after_growing_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system itself has space, and nothing says that the quota is used up."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    add(store, "a")
    config = DaemonConfig(state_dir=tmp_path, conversion_dir=tmp_path, output_dir=tmp_path, space_reserve="0")
    migration = Migration(vmdk=(Path("/d.vmdk"),), vm_name="a")
    order = Order(job_id="1", migration=migration, conversion_dir=tmp_path, output_dir=tmp_path, helper=())

    async def run() -> list[float]:
        ledger, pauses = Ledger(store), []
        room = Room(config, ledger)
        for _ in range(12):
            job = store.claim(now())
            assert job is not None
            store.requeue(1, job.attempt, "full", keep_stages=True, delay_seconds=3600, lacks_space=True)
            await room.wait_after_full(job, order, Request(Demand(tmp_path / "a.1", 1, tmp_path, 0)))
            begun = clock[0]
            while store.get(1).waiting_for is WaitingFor.SPACE:
                await room.wake_waiting()
                clock[0] += 1
            pauses.append(clock[0] - begun - 1)
        ledger.close()
        return pauses

    pauses = asyncio.run(run())
    assert pauses[:4] == [2, 4, 8, 16] and pauses[-1] == LONGEST_FULL_SECONDS
    assert store.failures(1) == 0


@pytest.mark.root
def test_a_new_daemon_ends_the_wait_of_two_jobs_for_each_other(tmp_path: Path) -> None:
    """They have filled the disk, so none of them can be claimed and ask for the space of the other."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    place = tmp_path / "conversions"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "h2k-test", place], check=True)
    try:
        for name in "ab":
            add(store, name)
            job = store.claim(now())
            assert job is not None
            store.requeue(job.id, 1, "full", keep_stages=True, delay_seconds=3600, lacks_space=True)
            (place / f"{name}.{job.id}").mkdir(mode=0o700)
            with contextlib.suppress(OSError):
                (place / f"{name}.{job.id}" / "disk1.raw").write_bytes(bytes(2 << 20))

        async def run() -> None:
            ledger = Ledger(store)
            room = Room(DaemonConfig(conversion_dir=place, output_dir=tmp_path, space_reserve="0"), ledger)
            for job in store.waiting_for_space():
                room.wait_again(job, place / f"{job.vm_name}.{job.id}")
            assert room.waiting_jobs == 2
            await room.wake_waiting()
            ledger.close()

        asyncio.run(run())
        assert [path.name for path in place.iterdir()] == ["a.1"]
        assert store.get(1).waiting_for is not WaitingFor.SPACE
        assert kinds(store, 2)[-1] == "folder-removed"
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(("free", "needed"), [(100 << 20, 10), (0, (8 << 20) + LEAST_GROWTH * 2)])
def test_a_job_that_has_filled_the_disk_needs_a_quarter_more(
    free: int, needed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").write_bytes(bytes(8 << 20))
    there = FileSystem(device=1, free=free, size=1 << 30)
    monkeypatch.setattr("hyper2kvmd.daemon.space.file_system_of", lambda _path: there)
    asked = Demand(tmp_path, 10, tmp_path, 0)
    assert asyncio.run(Space("0").after_full(asked)).conversion == needed


def test_a_file_system_without_inodes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = FileSystem(device=1, free=1 << 30, size=1 << 30, inodes=3)
    monkeypatch.setattr("hyper2kvmd.daemon.space.file_system_of", lambda _path: there)
    shortage = asyncio.run(Space("0").shortage(Demand(tmp_path, 10, tmp_path, 0)))
    assert shortage is not None and "waiting for inodes" in shortage.note and shortage.device is None


def test_folders_go_in_the_order_of_what_they_are_worth(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in "abcd":
        add(store, name)
    store.set_priority(4, 9, "root")
    places = {number: place_of(store.get(number)) for number in range(1, 5)}

    def folder(number: int, since: float, *, held: bool = False, waits: bool = False) -> KeptFolder:
        path = tmp_path / f"x.{number}"
        place = places[number] if waits else None
        return KeptFolder(path=path, device=1, kept_since=since, freed_bytes=10, held=held, place=place)

    folders = (
        *(folder(1, 1.0, waits=True), folder(2, 2.0, waits=True), folder(4, 3.0, waits=True)),
        *(folder(3, 4.0, held=True), folder(5, 6.0), folder(6, 5.0)),
    )
    chosen = sufficient(folders, Shortage("", device=1, missing=60))
    assert [one.job_id for one in chosen] == [6, 5, 3, 2, 1, 4]
    store.close()
