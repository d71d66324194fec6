"""Metrics for Prometheus. Counters grow with each event; `gauges.py` reads the rest from the daemon's status."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hyper2kvmd.daemon.gauges import GAUGES
from hyper2kvmd.daemon.wire import Status
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.jobs import Job, Problem, Stage, State
from hyper2kvmd.model.results import Product
from hyper2kvmd.progress import HelperOutcome

SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 43200, 86400)
NOTIFIED = ("delivered", "failed", "given-up")

LAST_TICK = "hyper2kvm_scheduler_last_tick_timestamp_seconds"
LAST_TICK_MEANING = "Time of the last scheduler run in which the database responded."


class Metrics(Collector):
    """Counters with known labels begin at 0, because `increase()` does not count the first appearance of a series."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {}
        """Of each metric here, by its name without a suffix."""
        self._status: Status | None = None
        self._last_tick = 0.0
        self._completed = self._counter(
            "hyper2kvm_jobs_completed",
            "Finished jobs, by outcome and by the code of the first problem.",
            "outcome",
            "reason",
        )
        self._last_failed = self._gauge(
            "hyper2kvm_job_last_failed_timestamp_seconds",
            "When a job last failed for that reason; absent if none has since the daemon's start.",
            "reason",
        )
        self._held = self._counter(
            "hyper2kvm_jobs_held_after_failure",
            "Jobs that were held because a person has to correct something, by the code of the first problem.",
            "reason",
        )
        self._warnings = self._counter("hyper2kvm_warnings", "Warnings of jobs, those of repeated attempts included.")
        self._stage_seconds = self._histogram(
            "hyper2kvm_stage_duration_seconds", "Duration of finished stages.", "stage"
        )
        self._queue_wait = self._histogram(
            "hyper2kvm_queue_wait_seconds", "Time from a job's submission to its first start."
        )
        self._read = self._counter(
            "hyper2kvm_bytes_read", "Bytes of source disks that conversions have processed, running ones included."
        )
        self._written = self._counter(
            "hyper2kvm_bytes_written", "Bytes that conversions have written to image files, running ones included."
        )
        self._spool_rejected = self._counter("hyper2kvm_spool_rejected", "Spool files rejected, by reason.", "reason")
        self._last_rejected = self._gauge(
            "hyper2kvm_spool_last_rejected_timestamp_seconds",
            "When a spool file was last rejected for that reason; absent if none has since the daemon's start.",
            "reason",
        )
        self._helper = self._counter(
            "hyper2kvm_helper_requests",
            "Requests to the root helper, by verb and outcome: `ok`, `unable` (the guest's file system or this kernel"
            " prevents it), `refused` (a forbidden request), `failed` (no valid answer).",
            "verb",
            "outcome",
        )
        self._notifications = self._counter(
            "hyper2kvm_notifications",
            "Tries to deliver a notification, by outcome: `delivered`, `failed` (tried again later) and `given-up`.",
            "destination",
            "outcome",
        )
        self._cleared = self._counter(
            "hyper2kvm_leftovers_cleared",
            "Leftovers of killed processes that the daemon has cleared, by kind: `draft` (in an output directory),"
            " `folder` (a working folder) and `mount` (FUSE).",
            "kind",
        )
        for kind in ("draft", "folder", "mount"):
            self._cleared.labels(kind)
        for stage in Stage:
            self._stage_seconds.labels(stage.value)
        for state in (State.SUCCEEDED, State.CANCELLED):
            self._completed.labels(state.value, "")
        for verb in ("probe", "mount"):
            for outcome in get_args(HelperOutcome):
                self._helper.labels(verb, outcome)
        ProcessCollector(registry=self.registry)
        ProcessCollector(namespace="hyper2kvm", registry=self.registry)  # the names of earlier versions
        self.registry.register(self)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self.labels[name] = labels
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self.labels[name] = labels
        return Gauge(name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        self.labels[name] = labels
        return Histogram(name, meaning, labels, buckets=SECONDS, registry=self.registry)

    def claimed(self, job: Job) -> None:
        if job.attempt == 1:
            self._queue_wait.observe((datetime.now(UTC) - job.created).total_seconds())

    def ended(self, state: State, problems: tuple[Problem, ...] = ()) -> None:
        reason = problems[0].code if problems else ""
        self._completed.labels(state.value, reason).inc()
        if state is State.FAILED:
            self._last_failed.labels(reason).set_to_current_time()

    def held(self, problems: tuple[Problem, ...]) -> None:
        """The job waits for a person, after a failure."""
        self._held.labels(problems[0].code).inc()

    def warned(self) -> None:
        self._warnings.inc()

    def stage_finished(self, stage: Stage, seconds: float, product: Product, counted: int) -> None:
        """`counted` bytes of an image were reported while it was written; some tools report none."""
        self._stage_seconds.labels(stage.value).observe(seconds)
        if isinstance(product, Image) and not counted:
            self._written.inc(product.file_bytes)

    def moved(self, read: int, written: int) -> None:
        """Bytes of a running conversion since its last report."""
        self._read.inc(read)
        self._written.inc(written)

    def rejected(self, reason: str) -> None:
        self._spool_rejected.labels(reason).inc()
        self._last_rejected.labels(reason).set_to_current_time()

    def helper_answered(self, verb: str, outcome: str) -> None:
        self._helper.labels(verb, outcome).inc()

    def cleared(self, kind: str) -> None:
        self._cleared.labels(kind).inc()

    def notified_destinations(self, names: Iterable[str]) -> None:
        for name in names:
            for outcome in NOTIFIED:
                self._notifications.labels(name, outcome)

    def notified(self, destination: str, outcome: str, number: int = 1) -> None:
        self._notifications.labels(destination, outcome).inc(number)

    def render(self, status: Status, last_tick: float) -> bytes:
        """Text for Prometheus, with gauges from `status`; `last_tick` is the scheduler's, by the monotonic clock."""
        self._status = status
        self._last_tick = time.time() - (time.monotonic() - last_tick)
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        status = self._status
        if status is None:
            return
        yield GaugeMetricFamily(LAST_TICK, LAST_TICK_MEANING, value=self._last_tick)
        for gauge in GAUGES:
            yield gauge.family(status)
