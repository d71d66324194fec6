"""The gauges on `/metrics`: what each one is called, means, and reads from the daemon's status at a scrape."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from prometheus_client.core import GaugeMetricFamily

from hyper2kvmd.daemon.wire import FileSystemRole, FileSystemUse, RunningJob, Status
from hyper2kvmd.model.jobs import Stage, State

WRITABLE = "hyper2kvm_directory_writable"
Sample = tuple[tuple[str, ...], float]
"""The values of the labels, and the value."""


@dataclass(frozen=True)
class Gauge:
    name: str
    help: str
    samples: Callable[[Status], Iterable[Sample]]
    labels: tuple[str, ...] = ()

    def family(self, status: Status) -> GaugeMetricFamily:
        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in self.samples(status):
            family.add_metric(labels, value)
        return family


def _one(value: float) -> Iterator[Sample]:
    yield (), value


def _of_jobs(read: Callable[[RunningJob], float | None]) -> Callable[[Status], Iterator[Sample]]:
    """One sample for each running job that has the figure."""

    def samples(status: Status) -> Iterator[Sample]:
        for job in status.running:
            value = read(job)
            if value is not None:
                yield (str(job.id),), value

    return samples


def _of_directories(read: Callable[[FileSystemUse], float]) -> Callable[[Status], Iterator[Sample]]:
    """One sample for each directory of the configuration, with the figures of its file system."""

    def samples(status: Status) -> Iterator[Sample]:
        for place in status.file_systems:
            for role in place.roles:
                yield (role,), read(place)

    return samples


def _writable(status: Status) -> Iterator[Sample]:
    faulty = {fault.role for fault in status.faults}
    for role in get_args(FileSystemRole):
        yield (role,), float(role not in faulty)


def _stages(status: Status) -> Iterator[Sample]:
    running = Counter(job.stage for job in status.running)
    for stage in Stage:
        yield (stage.value,), running[stage]


GAUGES = (
    Gauge(
        "hyper2kvm_build_info",
        "The running program.",
        lambda status: [((status.version, platform.python_version()), 1)],
        ("version", "python"),
    ),
    Gauge(
        "hyper2kvm_jobs",
        "Jobs on record, by state.",
        lambda status: [((state.value,), getattr(status.counts, state.value)) for state in State],
        ("state",),
    ),
    Gauge(
        "hyper2kvm_notifications_pending",
        "Notifications that are not delivered yet.",
        lambda status: [((one.destination,), one.pending) for one in status.notifications],
        ("destination",),
    ),
    Gauge(
        "hyper2kvm_oldest_queued_timestamp_seconds",
        "Submission time of the job that has been queued for longest; absent if none is queued.",
        lambda status: _one(status.oldest_queued.timestamp()) if status.oldest_queued else (),
    ),
    Gauge(
        "hyper2kvm_queue_paused",
        "1 while the queue is paused: no job starts.",
        lambda status: _one(float(status.state == "paused")),
    ),
    Gauge(
        "hyper2kvm_slots",
        "Jobs that may run at the same time (max_concurrent_jobs).",
        lambda status: _one(status.max_concurrent_jobs),
    ),
    Gauge("hyper2kvm_slots_used", "Jobs that run now.", lambda status: _one(len(status.running))),
    Gauge("hyper2kvm_running_jobs", "Running jobs, by the stage that they are in.", _stages, ("stage",)),
    Gauge(
        "hyper2kvm_job_progress_ratio",
        "Progress of a running job's current step.",
        _of_jobs(lambda job: job.progress or 0.0),
        ("job_id",),
    ),
    Gauge(
        "hyper2kvm_job_step_bytes",
        "Bytes that a running job has processed in its current step; absent without a measure in bytes.",
        _of_jobs(lambda job: job.bytes_done),
        ("job_id",),
    ),
    Gauge(
        "hyper2kvm_job_bytes_per_second",
        "Speed of a running job in the last 10 s; absent without a measure in bytes.",
        _of_jobs(lambda job: job.bytes_per_second),
        ("job_id",),
    ),
    Gauge(
        "hyper2kvm_directory_free_bytes",
        "Free bytes on the file system of a directory of the configuration.",
        _of_directories(lambda place: place.free),
        ("directory",),
    ),
    Gauge(
        "hyper2kvm_directory_size_bytes",
        "Size of that file system.",
        _of_directories(lambda place: place.size),
        ("directory",),
    ),
    Gauge(
        "hyper2kvm_directory_reserve_bytes",
        "Bytes that space_reserve keeps free on that file system.",
        _of_directories(lambda place: place.reserve),
        ("directory",),
    ),
    Gauge(
        "hyper2kvm_directory_promised_bytes",
        "Bytes promised to running jobs on that file system and not yet written.",
        _of_directories(lambda place: place.promised),
        ("directory",),
    ),
    Gauge(
        WRITABLE,
        "0 while the directory cannot be written to: its file system is full, read-only, failing or out of reach.",
        _writable,
        ("directory",),
    ),
    Gauge(
        "hyper2kvm_conversion_dir_free_bytes",
        "Free bytes on the file system of the conversion directory.",
        lambda status: _one(status.conversion_free_bytes),
    ),
    Gauge(
        "hyper2kvm_conversion_dir_reserved_bytes",
        "Bytes reserved there for running jobs and not yet written.",
        lambda status: _one(status.conversion_reserved_bytes),
    ),
)
