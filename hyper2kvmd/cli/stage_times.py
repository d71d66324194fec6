"""The stages of a job with their times, from its events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyper2kvmd.model.jobs import JobEvent

STARTED, FINISHED = "stage-started", "stage-finished"
ENDS = {"succeeded", "failed", "cancelled", "requeued", "held", "rejected"}
"""Kinds of events that end an attempt."""
MOVES = {"submitted", "held", "released", "retried", "requeued"}
"""Kinds of events after which a job waits."""


@dataclass(frozen=True)
class StageTime:
    stage: str
    attempt: int
    started: datetime
    ended: datetime | None = None
    """None while it runs."""
    outcome: str = ""
    """Empty while it runs; else `done`, or the kind of the event that ended the attempt."""


def stage_times(events: Iterable[JobEvent]) -> list[StageTime]:
    """All stages of all attempts, in their order."""
    found: list[StageTime] = []
    for event in events:
        running = bool(found) and found[-1].ended is None
        if event.kind == STARTED:
            found.append(StageTime(event.message, event.attempt, event.at))
        elif running and event.kind == FINISHED:
            found[-1] = replace(found[-1], ended=event.at, outcome="done")
        elif running and event.kind in ENDS:
            found[-1] = replace(found[-1], ended=event.at, outcome=event.kind)
    return found


def waiting_since(events: Iterable[JobEvent]) -> datetime | None:
    """When a waiting job was last put into the queue, or held."""
    return max((event.at for event in events if event.kind in MOVES), default=None)
