"""Metrics for Prometheus. Counters grow with each event; gauges are set from the daemon's status at each scrape."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import hyper2kvmd
from hyper2kvmd.daemon.wire import Status
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.jobs import Job, Problem, Stage, State
from hyper2kvmd.model.results import Product

SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 43200, 86400)


class Metrics(Collector):
    """Counters with known labels begin at 0, because `increase()` does not count the first appearance of a series."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._status: Status | None = None
        self._last_tick = 0.0
        self._completed = Counter(
            "hyper2kvm_jobs_completed",
            "Finished jobs, by outcome and by the code of the first problem.",
            ("outcome", "reason"),
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "hyper2kvm_stage_duration_seconds",
            "Duration of finished stages.",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._queue_wait = Histogram(
            "hyper2kvm_queue_wait_seconds",
            "Time from a job's submission to its first start.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._read = Counter(
            "hyper2kvm_bytes_read", "Bytes of source disks that conversions have processed.", registry=self.registry
        )
        self._written = Counter(
            "hyper2kvm_bytes_written", "Bytes of the image files that conversions have written.", registry=self.registry
        )
        self._spool_rejected = Counter(
            "hyper2kvm_spool_rejected", "Spool files rejected, by reason.", ("reason",), registry=self.registry
        )
        self._helper = Counter(
            "hyper2kvm_helper_requests",
            "Requests to the root helper, by verb and outcome.",
            ("verb", "outcome"),
            registry=self.registry,
        )
        for stage in Stage:
            self._stage_seconds.labels(stage.value)
        for state in (State.SUCCEEDED, State.CANCELLED):
            self._completed.labels(state.value, "")
        for verb in ("probe", "mount"):
            for outcome in ("ok", "refused", "failed"):
                self._helper.labels(verb, outcome)
        ProcessCollector(namespace="hyper2kvm", registry=self.registry)
        self.registry.register(self)

    def claimed(self, job: Job) -> None:
        if job.attempt == 1:
            self._queue_wait.observe((datetime.now(UTC) - job.created).total_seconds())

    def ended(self, state: State, problems: tuple[Problem, ...] = ()) -> None:
        self._completed.labels(state.value, problems[0].code if problems else "").inc()

    def stage_finished(self, stage: Stage, seconds: float, product: Product) -> None:
        self._stage_seconds.labels(stage.value).observe(seconds)
        if isinstance(product, Image):
            self._written.inc(product.file_bytes)

    def bytes_read(self, number: int) -> None:
        self._read.inc(number)

    def rejected(self, reason: str) -> None:
        self._spool_rejected.labels(reason).inc()

    def helper_answered(self, verb: str, outcome: str) -> None:
        self._helper.labels(verb, outcome).inc()

    def render(self, status: Status, last_tick: float) -> bytes:
        """Text for Prometheus, with gauges from `status`; `last_tick` is the scheduler's, by the monotonic clock."""
        self._status = status
        self._last_tick = time.time() - (time.monotonic() - last_tick)
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("hyper2kvm_build_info", "The running program.", labels=("version", "python"))
        build.add_metric((hyper2kvmd.__version__, platform.python_version()), 1)
        yield build
        status = self._status
        if status is None:
            return
        yield GaugeMetricFamily(
            "hyper2kvm_scheduler_last_tick_timestamp_seconds",
            "Time of the last scheduler run in which the database responded.",
            value=self._last_tick,
        )
        jobs = GaugeMetricFamily("hyper2kvm_jobs", "Jobs on record, by state.", labels=("state",))
        for state in State:
            jobs.add_metric((state.value,), getattr(status.counts, state.value))
        yield jobs
        oldest = GaugeMetricFamily(
            "hyper2kvm_oldest_queued_timestamp_seconds",
            "Submission time of the job that has been queued for longest; absent if none is queued.",
        )
        if status.oldest_queued is not None:
            oldest.add_metric((), status.oldest_queued.timestamp())
        yield oldest
        progress = GaugeMetricFamily(
            "hyper2kvm_job_progress_ratio", "Progress of a running job's current step.", labels=("job_id",)
        )
        for job in status.running:
            progress.add_metric((str(job.id),), job.progress or 0.0)
        yield progress
        yield GaugeMetricFamily(
            "hyper2kvm_conversion_dir_free_bytes",
            "Free bytes on the file system of the conversion directory.",
            value=status.conversion_free_bytes,
        )
        yield GaugeMetricFamily(
            "hyper2kvm_conversion_dir_reserved_bytes",
            "Bytes reserved there for running jobs and not yet written.",
            value=status.conversion_reserved_bytes,
        )
