"""An error that is met every second is logged when it begins, every ten minutes, and when it is over."""

from __future__ import annotations

import logging
import time

import pytest

from hyper2kvmd.daemon.outage import Outage
from hyper2kvmd.errors import TryLater


def error(fact: str) -> TryLater:
    return TryLater("database-unavailable", fact, hint="Wait")


def test_the_fact_lasts_as_long_as_the_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, outage = [1000.0], Outage("the job database")
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    assert outage.fact == ""
    outage.failed(error("it is full"))
    clock[0] += 2
    outage.succeeded()  # it can be read all the time
    assert outage.fact == "it is full. Wait. [database-unavailable]"
    clock[0] += 10
    assert outage.fact == ""


def test_what_is_logged_of_an_outage(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock, outage = [1000.0], Outage("the job database")
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO)
    for second in range(1300):
        outage.failed(error("it is read-only"))
        if second % 5 == 0:
            outage.failed(error("it is locked"))
        outage.succeeded()  # it can be read all the time
        clock[0] += 1
    clock[0] += 60
    outage.succeeded()
    outage.succeeded()
    outage.failed(error("it is read-only"))
    assert [record.message for record in caplog.records] == [
        "it is read-only. Wait. [database-unavailable]",
        "it is locked. Wait. [database-unavailable]",
        "for 10 min 0 s: it is read-only. Wait. [database-unavailable]",
        "for 20 min 0 s: it is read-only. Wait. [database-unavailable]",
        "the job database responds again, after 21 min 39 s",
        "it is read-only. Wait. [database-unavailable]",
    ]
