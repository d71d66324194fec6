"""The scheduling loop itself: when systemd's watchdog is fed, and how long a failed job waits."""

from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.config import DaemonConfig, Retry
from hyper2kvmd.daemon.conclusions import JITTER, LONGEST_DELAY_SECONDS, delay_before
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.scheduler import Scheduler
from hyper2kvmd.daemon.storage import Storage
from hyper2kvmd.daemon.wall_clock import ClockRecord
from hyper2kvmd.errors import TryLater
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job, WaitingFor
from hyper2kvmd.uptime import uptime
from tests.support.queue_verbs import add, kinds, now

WAIT_SECONDS = 60


class Silent(Store):
    """A database that can be made not to respond."""

    silent = False

    def claim(self, *arguments: Any, **keys: Any) -> Job | None:
        if self.silent:
            raise TryLater("database-unavailable", "the database does not respond", hint="Wait")
        return super().claim(*arguments, **keys)


def test_the_watchdog_is_fed_by_completed_rounds_only(tmp_path: Path) -> None:
    async def run() -> None:
        store, rounds, stuck = Silent(f"sqlite:///{tmp_path}/jobs.sqlite3"), asyncio.Semaphore(0), threading.Event()
        ledger = Ledger(store)
        config = DaemonConfig(state_dir=tmp_path, conversion_dir=tmp_path)
        scheduler = Scheduler(config, ledger, Metrics(), (), Storage(config, Locks(config)))
        following = asyncio.create_task(scheduler.follow(rounds.release))

        async def feeds() -> None:
            scheduler.wake()
            await asyncio.wait_for(rounds.acquire(), WAIT_SECONDS)

        await feeds()
        store.silent = True
        for _ in range(3):  # a restart would not make the database respond
            await feeds()
        blocking = asyncio.create_task(ledger.call(stuck.wait))
        await asyncio.sleep(0)
        while not rounds.locked():
            await rounds.acquire()
        scheduler.wake()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rounds.acquire(), 2.0)
        stuck.set()
        await blocking
        await asyncio.wait_for(rounds.acquire(), WAIT_SECONDS)
        scheduler.quit()
        await following
        ledger.close()

    asyncio.run(run())


class Forgetful(Store):
    """A database whose server is restarted while it answers a claim, which is on record then."""

    claimed = 0

    def claim(self, *arguments: Any, **keys: Any) -> Job | None:
        job = super().claim(*arguments, **keys)
        self.claimed += 1
        if self.claimed == 1:
            raise TryLater("database-unavailable", "the connection was lost", hint="Wait")
        return job


def test_a_claim_whose_answer_is_lost_is_repeated(tmp_path: Path) -> None:
    async def run() -> None:
        store, rounds = Forgetful(f"sqlite:///{tmp_path}/jobs.sqlite3"), asyncio.Semaphore(0)
        add(store, "a")
        ledger = Ledger(store)
        config = DaemonConfig(state_dir=tmp_path, conversion_dir=tmp_path)
        scheduler = Scheduler(config, ledger, Metrics(), ("/bin/true",), Storage(config, Locks(config)))
        following = asyncio.create_task(scheduler.follow(rounds.release))
        for _ in range(3):
            scheduler.wake()
            await asyncio.wait_for(rounds.acquire(), WAIT_SECONDS)
        assert store.claimed >= 2 and store.get(1).attempt == 2
        assert kinds(store, 1)[:4] == ["submitted", "claimed", "requeued", "claimed"]
        scheduler.quit()
        await following
        await scheduler.stop()
        ledger.close()

    asyncio.run(run())


EARLIER = ClockRecord(boot="earlier", wall=now(), seconds=9.0).model_dump_json()


@pytest.mark.parametrize("record", [EARLIER, "{"], ids=["of an earlier boot", "damaged"])
def test_what_an_earlier_boot_left_on_record_is_corrected_by_the_first_round(tmp_path: Path, record: str) -> None:
    async def run() -> None:
        store, rounds = Store(f"sqlite:///{tmp_path}/jobs.sqlite3"), asyncio.Semaphore(0)
        add(store, "a")
        assert store.claim(now(), usable=lambda _migration: False) is None
        assert store.get(1).waiting_for is WaitingFor.STORAGE
        store.set_paused(True)
        store.keep_clock_record(record)
        ledger = Ledger(store)
        config = DaemonConfig(state_dir=tmp_path, conversion_dir=tmp_path)
        scheduler = Scheduler(config, ledger, Metrics(), (), Storage(config, Locks(config)))
        await scheduler.recover()
        following = asyncio.create_task(scheduler.follow(rounds.release))
        await asyncio.wait_for(rounds.acquire(), WAIT_SECONDS)
        assert store.get(1).waiting_for is WaitingFor.PAUSE
        assert ClockRecord.model_validate_json(str(store.clock_record())).boot == uptime().boot
        scheduler.quit()
        await following
        ledger.close()

    asyncio.run(run())


def test_delays_grow_are_spread_and_have_a_limit() -> None:
    policy = Retry(max_attempts=100, delay=60, backoff=2)
    for failures in (0, 1, 4):
        found = {delay_before(failures, policy) for _ in range(50)}
        least = 60 * 2**failures
        assert len(found) > 1 and all(least <= seconds <= least * (1 + JITTER) for seconds in found)
    firsts = [min(delay_before(failures, policy) for _ in range(20)) for failures in range(8)]
    assert all(later > earlier for earlier, later in itertools.pairwise(firsts))
    for delay in (60, 1e9):
        found = {delay_before(99, Retry(max_attempts=100, delay=delay, backoff=1e300)) for _ in range(50)}
        assert len(found) > 1 and max(found) <= LONGEST_DELAY_SECONDS
    assert delay_before(99, Retry(max_attempts=100, delay=0, backoff=10)) == 0
