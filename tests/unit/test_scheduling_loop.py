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
from hyper2kvmd.errors import TryLater
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job, WaitingFor
from tests.support.queue_verbs import add, now

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


def test_no_job_waits_for_a_fault_that_ended_before_the_start(tmp_path: Path) -> None:
    async def run() -> None:
        store, rounds = Store(f"sqlite:///{tmp_path}/jobs.sqlite3"), asyncio.Semaphore(0)
        add(store, "a")
        assert store.claim(now(), usable=lambda _migration: False) is None
        assert store.get(1).waiting_for is WaitingFor.STORAGE
        store.set_paused(True)
        ledger = Ledger(store)
        config = DaemonConfig(state_dir=tmp_path, conversion_dir=tmp_path)
        scheduler = Scheduler(config, ledger, Metrics(), (), Storage(config, Locks(config)))
        await scheduler.recover()
        following = asyncio.create_task(scheduler.follow(rounds.release))
        await asyncio.wait_for(rounds.acquire(), WAIT_SECONDS)
        assert store.get(1).waiting_for is WaitingFor.PAUSE
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
    longest = LONGEST_DELAY_SECONDS * (1 + JITTER)
    assert delay_before(99, Retry(max_attempts=100, delay=1e9, backoff=1e300)) <= longest
    assert delay_before(99, Retry(max_attempts=100, delay=0, backoff=10)) == 0
