"""When a running job counts as stalled."""

from __future__ import annotations

from hyper2kvmd.daemon.stall import StallWatch


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
