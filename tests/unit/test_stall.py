"""When a running job counts as stalled."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time

from hyper2kvmd.daemon.stall import Activity, StallWatch, activity_of


def test_a_stall_is_reported_once_until_something_moves() -> None:
    watch = StallWatch(10.0)
    assert not watch.report_due(1e9)
    watch.move(0.0)
    assert [watch.report_due(float(now)) for now in (9, 10, 11, 60)] == [False, True, False, False]
    watch.move(60.0)
    assert [watch.report_due(float(now)) for now in (69, 70)] == [False, True]


def test_progress_without_bytes_is_none() -> None:
    watch = StallWatch(10.0)
    watch.move_bytes(5, 0, 1.0)
    for now in range(2, 11):
        watch.move_bytes(5, 0, float(now))
    assert watch.report_due(11.0)
    watch.move_bytes(5, 1, 12.0)
    assert not watch.report_due(21.0) and watch.report_due(22.0)


def test_zero_is_never() -> None:
    watch = StallWatch(0.0)
    watch.move(0.0)
    assert not watch.report_due(1e9)


IDLE = Activity(frozenset({1}), 0, 0.0)


def ended_at(*seen: Activity) -> float:
    """When a worker is ended that reports nothing, and is examined every ten seconds; the last activity stays."""
    watch = StallWatch(0.0, 100.0)
    watch.move(0.0)
    for number in range(1, 100):
        now = 10.0 * number
        assert watch.is_silent(now)
        watch.compare(seen[min(number, len(seen)) - 1], now)
        if watch.end_due(now):
            return now
    return math.inf


def test_a_worker_that_does_nothing_is_ended() -> None:
    assert ended_at(IDLE) == 100.0
    assert StallWatch(0.0, 0.0).end_due(1e9) is False
    drip = [Activity(frozenset({1}), 1000 * number, 0.01 * number) for number in range(100)]
    assert ended_at(*drip) == 100.0, "what a process that waits does is nothing"


def test_a_worker_that_works_is_not_ended() -> None:
    reading = [Activity(frozenset({1}), number << 20, 0.0) for number in range(100)]
    computing = [Activity(frozenset({1}), 0, 9.0 * number) for number in range(100)]
    starting = [Activity(frozenset({number}), 0, 0.0) for number in range(100)]
    for seen in (reading, computing, starting):
        assert ended_at(*seen) == math.inf
    assert ended_at(*reading[:20]) == 300.0, "it has worked until 200 s"


def test_what_a_process_below_another_one_does_is_seen() -> None:
    script = "import subprocess; subprocess.run(['dd', 'if=/dev/zero', 'of=/dev/null', 'bs=1M'])"
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True) as process:
        try:
            before = activity_of(process.pid)
            limit = time.monotonic() + 60
            while activity_of(process.pid).moved_bytes < before.moved_bytes + (8 << 20):
                assert time.monotonic() < limit
                time.sleep(0.05)
            assert len(activity_of(process.pid).processes) == 2
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert activity_of(process.pid) == Activity(frozenset(), 0, 0.0)
