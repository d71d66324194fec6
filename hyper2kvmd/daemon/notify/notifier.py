"""Empties the outbox: each destination has a task of its own, so that none delays the others, or jobs."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.batch_report import csv_report
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.notify.delivery import deliver
from hyper2kvmd.errors import Failure, Kind, MigrationFailed, NotFound, TryLater
from hyper2kvmd.model.jobs import JobFilter, Sort
from hyper2kvmd.model.notifications import Destination, Notification, Outgoing, Tried
from hyper2kvmd.progress import problem

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
FIRST_SECONDS, LONGEST_SECONDS = 2.0, 3600.0
"""Between two tries of a notification: the time doubles with each try."""
GIVE_UP_AFTER = 240
"""Tries, which take seven days on average. Days are not counted: the clock may jump, or the daemon be off for weeks."""
GIVE_UP_SECONDS = 60.0
"""Between two searches for notifications to be given up."""
MAX_REPORTED = 500
"""Jobs of a batch in a notification."""


class Notifier:
    def __init__(self, ledger: Ledger, metrics: Metrics) -> None:
        self._ledger, self._metrics = ledger, metrics
        self._destinations: Mapping[str, Destination] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._errors: dict[str, str] = {}
        self._given_up = -GIVE_UP_SECONDS

    async def configure(self, config: DaemonConfig) -> None:
        """From now on, these destinations get notifications. Call it before anything that records events."""
        self._destinations = {one.label: one for one in config.notify}
        wanted = {name: one.on for name, one in self._destinations.items()}
        await self._ledger.ensure(self._ledger.store.subscribe, wanted)
        self._metrics.notified_destinations(tuple(wanted))

    async def follow(self) -> None:
        """Send what is due, until this task is cancelled."""
        try:
            while True:
                try:
                    await self._tick()
                except TryLater as failure:
                    self._ledger.report(failure)
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for task in self._sending.values():
                task.cancel()

    async def test(self, name: str | None) -> tuple[Tried, ...]:
        """Send a test notification to that destination, or to all, once. Raises NotFound (`notify-unknown`)."""
        known = self._destinations
        if name is not None and name not in known:
            listed = ", ".join(known) or "none"
            raise NotFound(
                "notify-unknown",
                f"notify has no destination {name}",
                hint=f"Choose one of the configuration: {listed}",
            )
        chosen = known.values() if name is None else (known[name],)
        return tuple(await asyncio.gather(*map(_try_test, chosen)))

    async def _tick(self) -> None:
        if time.monotonic() - self._given_up >= GIVE_UP_SECONDS:
            self._given_up = time.monotonic()
            await self._give_up()
        for name in await self._ledger.call(self._ledger.store.due_destinations, datetime.now(UTC)):
            running = self._sending.get(name)
            if name in self._destinations and (running is None or running.done()):
                self._sending[name] = asyncio.create_task(self._send_due(name))

    async def _give_up(self) -> None:
        known = tuple(self._destinations)
        given_up = await self._ledger.call(self._ledger.store.give_up_deliveries, GIVE_UP_AFTER, known)
        for name, number in given_up.items():
            self._metrics.notified(name, "given-up", number)
            why = f"after {GIVE_UP_AFTER} tries, or too many" if name in known else "no longer in the configuration"
            log.error("notifications to %s given up: %d (%s)", name, number, why)

    async def _send_due(self, name: str) -> None:
        store = self._ledger.store
        try:
            while destination := self._destinations.get(name):
                outgoing = await self._ledger.call(store.next_notification, name, datetime.now(UTC))
                if outgoing is None:
                    return
                await self._send(destination, outgoing)
        except TryLater as failure:
            self._ledger.report(failure)

    async def _send(self, destination: Destination, outgoing: Outgoing) -> None:
        ledger, store, name = self._ledger, self._ledger.store, destination.label
        error = await _try(destination, await self._completed(outgoing.notification))
        if error is None:
            await ledger.ensure(store.record_delivery, outgoing.number)
            self._metrics.notified(name, "delivered")
            if self._errors.pop(name, None) is not None:
                log.info("notifications to %s are delivered again", name)
            return
        later = datetime.now(UTC) + timedelta(seconds=delay_seconds(outgoing.tries))
        await ledger.ensure(store.postpone_delivery, outgoing.number, str(error), later)
        self._metrics.notified(name, "failed")
        if self._errors.get(name) != str(error):
            self._errors[name] = str(error)
            log.error("a notification to %s was not delivered and will be tried again: %s", name, error)

    async def _completed(self, notification: Notification) -> Notification:
        """With the host, and the report of the batch as it is now."""
        completed = notification.with_changes(host=socket.gethostname())
        if notification.batch is None:
            return completed
        store, chosen = self._ledger.store, JobFilter(batch_id=notification.batch.id)
        jobs = await self._ledger.call(store.list, chosen, MAX_REPORTED + 1, 0, Sort.OLDEST)
        if not 0 < len(jobs) <= MAX_REPORTED:
            return completed
        artifacts = await self._ledger.call(store.artifacts, [job.id for job in jobs])
        return completed.with_changes(batch_report=csv_report(jobs, artifacts))


def delay_seconds(tries: int) -> float:
    """Until the next try, after so many; random, so that receivers do not get all retries at the same time."""
    longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(tries, 30))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


async def _try(destination: Destination, notification: Notification) -> Failure | None:
    try:
        await deliver(destination, notification)
    except Failure as failure:
        return failure
    except Exception as error:
        log.exception("a notification to %s failed by an error of this program", destination.label)
        fact = f"{type(error).__name__}: {error}"
        return MigrationFailed("internal-error", fact, hint="Report this bug, with the log", kind=Kind.OPERATOR)
    return None


async def _try_test(destination: Destination) -> Tried:
    at, host = datetime.now(UTC), socket.gethostname()
    summary = f"test notification of hyper2kvmd on {host}"
    made = Notification(id=uuid.uuid4().hex, event="test", at=at, host=host, summary=summary)
    failure = await _try(destination, made)
    fact = None if failure is None else problem(failure)
    return Tried(destination=destination.label, delivered=failure is None, problem=fact)
