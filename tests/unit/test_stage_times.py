"""The stages of a job are read from its events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hyper2kvmd.cli.stage_times import StageTime, stage_times, waiting_since
from hyper2kvmd.model.jobs import JobEvent

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def events(*kinds: str) -> list[JobEvent]:
    """One a minute: `KIND`, or `KIND MESSAGE`; `claimed` begins the next attempt."""
    listed, attempt = [], 0
    for minute, words in enumerate(kinds):
        kind, _, message = words.partition(" ")
        attempt += kind == "claimed"
        listed.append(JobEvent(id=minute + 1, job_id=1, at=at(minute), attempt=attempt, kind=kind, message=message))
    return listed


def test_stages_of_several_attempts() -> None:
    first = ("submitted", "claimed", "stage-started plan", "stage-finished plan in 1 s", "stage-started convert")
    second = ("claimed", "stage-started convert", "stage-finished convert in 1 s", "stage-started repair")
    told = events(*first, "warned x", "requeued no space", *second)
    assert stage_times(told) == [
        StageTime("plan", 1, at(2), at(3), "done"),
        StageTime("convert", 1, at(4), at(6), "requeued"),
        StageTime("convert", 2, at(8), at(9), "done"),
        StageTime("repair", 2, at(10)),
    ]


@pytest.mark.parametrize("kind", ["succeeded", "failed", "cancelled", "requeued", "rejected", "held"])
def test_whatever_ends_an_attempt_ends_its_stage(kind: str) -> None:
    (plan,) = stage_times(events("claimed", "stage-started plan", kind))
    assert (plan.ended, plan.outcome) == (at(2), kind)


def test_a_failure_between_stages_ends_none() -> None:
    told = events("claimed", "stage-started plan", "stage-finished plan in 1 s", "failed")
    assert [one.outcome for one in stage_times(told)] == ["done"]
    assert stage_times(events("submitted", "held")) == []


def test_waiting_begins_with_the_last_return_to_the_queue() -> None:
    assert waiting_since(events("submitted", "claimed", "requeued x", "priority-changed 5 to 6")) == at(2)
    assert waiting_since(events("submitted", "held")) == at(1)
    assert waiting_since([]) is None
