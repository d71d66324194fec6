"""Jobs whose writes found no space: how long they pause, what they need then, and whose folders go for them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.kept import KeptFolder, place_of, sufficient
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.room import LONGEST_FULL_SECONDS, Request, Room
from hyper2kvmd.daemon.space import LEAST_GROWTH, Demand, Shortage, Space
from hyper2kvmd.host import conversion_dir
from hyper2kvmd.host.removal import remove_tree
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import WaitingFor
from hyper2kvmd.model.orders import FileSystem, Order
from hyper2kvmd.progress import AwaitingSpace
from tests.support.queue_verbs import add, claim, kinds, now

MIB = 1 << 20


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


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A conversion directory of 4 MiB."""
    with tmpfs(tmp_path / "conversions", "size=4m") as place:
        yield place


@contextlib.contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "h2k-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place: Path, *names: str) -> None:
    for name in names:
        (place / name).mkdir(mode=0o700)
        with contextlib.suppress(OSError):
            (place / name / "disk1.raw").write_bytes(bytes(2 << 20))


async def repeat(act: Callable[[], Awaitable[object]], done: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not done():
            await act()
            await asyncio.sleep(0.02)


@pytest.mark.root
def test_a_full_disk_of_queued_jobs_that_wait_for_no_space_is_relieved(tmp_path: Path, small: Path) -> None:
    """A daemon that dies leaves such jobs. None of them can be claimed and find out that it lacks space."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in "ab":
        add(store, name)
        claim(store)
    store.recover()
    fill(small, "a.1", "b.2")

    async def run() -> None:
        ledger = Ledger(store)
        room = Room(DaemonConfig(conversion_dir=small, output_dir=tmp_path, space_reserve="0"), ledger)
        await repeat(room.relieve, lambda: not (small / "b.2").exists())
        await room.relieve()
        ledger.close()

    asyncio.run(run())
    assert [path.name for path in small.iterdir()] == ["a.1"]


@pytest.mark.root
def test_the_scheduler_does_not_wait_for_the_removal_of_folders(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal of large files may take longer than systemd's watchdog waits."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in "ab":
        add(store, name)
        store.requeue(claim(store).id, 1, "full", keep_stages=True, delay_seconds=3600, lacks_space=True)
    fill(small, "a.1", "b.2")
    may_go, removed = threading.Event(), list[str]()

    def slowly(parent: int, name: str) -> None:
        removed.append(name)
        may_go.wait(300)
        remove_tree(parent, name)

    monkeypatch.setattr(conversion_dir, "remove_tree", slowly)

    async def run() -> None:
        ledger = Ledger(store)
        room = Room(DaemonConfig(conversion_dir=small, output_dir=tmp_path, space_reserve="0"), ledger)
        for job in store.waiting_for_space():
            room.wait_again(job, small / f"{job.vm_name}.{job.id}")
        for _ in range(3):
            await room.wake_waiting()
            await room.relieve()
        assert store.get(1).waiting_for is WaitingFor.SPACE
        may_go.set()
        await repeat(room.wake_waiting, lambda: not (small / "b.2").exists())
        ledger.close()

    asyncio.run(run())
    assert removed == ["b.2"]


@pytest.mark.root
def test_the_folder_of_a_job_that_was_held_while_it_waited_can_be_removed(tmp_path: Path, small: Path) -> None:
    """Else a job that needs its space would be started for it, and denied it, again and again."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in "ab":
        add(store, name)
        store.requeue(claim(store).id, 1, "full", keep_stages=True, delay_seconds=3600, lacks_space=True)
    fill(small, "b.2")
    migration = Migration(vmdk=(Path("/d.vmdk"),), vm_name="a")

    async def run() -> bool:
        ledger = Ledger(store)
        room = Room(DaemonConfig(conversion_dir=small, output_dir=tmp_path, space_reserve="0"), ledger)
        room.wait(store.get(2), Demand(small / "b.2", 8 << 20, tmp_path, 0))
        store.hold(2, "root")
        store.wake([1])
        order = Order(job_id="1", migration=migration, conversion_dir=small, output_dir=tmp_path, helper=())
        admitted = await room.admit(claim(store), order, AwaitingSpace(needed_bytes=3 << 20, publish_bytes=0))
        ledger.close()
        return admitted

    assert asyncio.run(run())
    assert not (small / "b.2").exists()


@pytest.mark.root
def test_a_new_daemon_ends_the_wait_of_two_jobs_for_each_other(tmp_path: Path, small: Path) -> None:
    """They have filled the disk, so none of them can be claimed and ask for the space of the other."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in "ab":
        add(store, name)
        store.requeue(claim(store).id, 1, "full", keep_stages=True, delay_seconds=3600, lacks_space=True)
    fill(small, "a.1", "b.2")

    async def run() -> None:
        ledger = Ledger(store)
        room = Room(DaemonConfig(conversion_dir=small, output_dir=tmp_path, space_reserve="0"), ledger)
        for job in store.waiting_for_space():
            room.wait_again(job, small / f"{job.vm_name}.{job.id}")
        assert room.waiting_jobs == 2
        await repeat(room.wake_waiting, lambda: store.get(1).waiting_for is not WaitingFor.SPACE)
        ledger.close()

    asyncio.run(run())
    assert [path.name for path in small.iterdir()] == ["a.1"]
    assert kinds(store, 2)[-1] == "folder-removed"


@pytest.mark.root
def test_space_that_is_not_free_at_once_costs_no_other_folder(tmp_path: Path, small: Path) -> None:
    """As on btrfs: here the file is open when it is removed."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in "abc":
        add(store, name)
        claim(store)
    store.recover()
    fill(small, "c.3", "b.2", "a.1")

    async def run() -> None:
        ledger = Ledger(store)
        room = Room(DaemonConfig(conversion_dir=small, output_dir=tmp_path, space_reserve="0"), ledger)
        with (small / "c.3" / "disk1.raw").open("rb"):
            await repeat(room.relieve, lambda: not (small / "c.3").exists())
            for _ in range(20):
                await room.relieve()
        ledger.close()

    asyncio.run(run())
    assert sorted(path.name for path in small.iterdir()) == ["a.1", "b.2"]


@pytest.mark.root
def test_no_more_folders_go_for_an_output_directory_than_it_lacked(tmp_path: Path, small: Path) -> None:
    """Of one that a submitter names, the daemon knows what the worker found: the job has to ask again."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in "abc":
        add(store, name)
    store.requeue(claim(store).id, 1, "full", keep_stages=True, delay_seconds=3600)
    for _ in "bc":
        store.fail(claim(store).id, 1, (), keep_stages=True)
    fill(small, "b.2", "c.3")
    found = FileSystem(device=small.stat().st_dev, free=0, size=4 << 20)

    async def run() -> None:
        ledger = Ledger(store)
        room = Room(DaemonConfig(conversion_dir=small, output_dir=tmp_path, space_reserve="0"), ledger)
        room.wait(store.get(1), Demand(small / "a.1", 0, found, LEAST_GROWTH))
        await repeat(room.wake_waiting, lambda: room.waiting_jobs == 0)
        ledger.close()

    asyncio.run(run())
    assert store.get(1).waiting_for is not WaitingFor.SPACE
    assert (small / "b.2").exists() and (small / "c.3").exists()


@pytest.mark.root
@pytest.mark.parametrize(("ballast", "needed"), [(0, 10), (24 * MIB, 8 * MIB + LEAST_GROWTH * 2)])
def test_a_job_that_has_filled_the_disk_needs_a_quarter_more(ballast: int, needed: int, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "conversions", "size=32m") as place:
        folder = place / "a.1"
        folder.mkdir()
        (folder / "disk").write_bytes(bytes(8 * MIB))
        (place / "ballast").write_bytes(bytes(ballast))
        asked = Demand(folder, 10, tmp_path, 0)
        assert asyncio.run(Space("0").after_full(asked)).conversion == needed


@pytest.mark.root
def test_a_file_system_without_inodes_is_waited_for(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "conversions", "nr_inodes=4") as place:
        shortage = asyncio.run(Space("0").shortage(Demand(place, 10, place, 0)))
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
