"""The path of states that the events of a job may describe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

STAGES = ("plan", "convert", "repair", "verify", "publish", "register")
ANY = frozenset({"queued", "held", "running", "succeeded", "failed", "cancelled", "rejected"})
ACTIVE = frozenset({"queued", "held", "running"})
MOVES: dict[str, tuple[frozenset[str], str]] = {
    "requeued": (frozenset({"running"}), "queued"),
    "succeeded": (frozenset({"running"}), "succeeded"),
    "failed": (frozenset({"running", "queued", "held"}), "failed"),
    "cancelled": (ACTIVE, "cancelled"),
    "held": (frozenset({"queued", "running"}), "held"),
    "released": (frozenset({"held"}), "queued"),
    "retried": (frozenset({"failed", "cancelled", "held"}), "queued"),
}
"""Events that change the state: from which states, and to which one."""
REMARKS = {
    "warned": frozenset({"running"}),
    "noted": frozenset({"running"}),
    "space-reserved": frozenset({"running"}),
    "cancel-requested": frozenset({"running"}),
    "machine": frozenset({"running"}),
    "duplicate": ACTIVE,
    "priority-changed": ACTIVE,
    "folder-removed": ANY,
}
"""Events that leave the state as it is: in which states they may be. An event of another kind is illegal."""


@dataclass
class _Walk:
    """Where the events so far lead."""

    state: str = ""
    attempt: int = 0
    stage: str = ""
    """The one that runs."""
    begun: list[str] = field(default_factory=list)
    """Stages of this attempt."""
    finished: set[str] = field(default_factory=set)
    """Stages of all attempts."""


def illegal_events(rows: list[dict[str, Any]], events: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the events of these jobs, or does not agree with their rows."""
    wrong = []
    for row in rows:
        own = [event for event in events if event["job_id"] == row["id"]]
        if faults := list(_faults(row, own)):
            told = ", ".join(f"{event['kind']} {event['message'][:40]}".strip() for event in own)
            wrong.append(f"job {row['id']} ({row['vm_name']}): {'; '.join(faults[:3])}. Its events: {told}")
    return wrong


def _faults(row: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[str]:
    walk = _Walk()
    for event in events:
        if fault := _step(walk, event["kind"], event["message"], event["attempt"]):
            yield f"event {event['id']}, {event['kind']}: {fault}"
    if walk.state != row["state"]:
        yield f"its row says {row['state']}, its events {walk.state}"
    if walk.attempt != row["attempt"]:
        yield f"its row says attempt {row['attempt']}, its events {walk.attempt}"
    if row["state"] not in ("running",) and row["reserved_bytes"]:
        yield f"{row['state']}, with {row['reserved_bytes']} bytes reserved"


def _step(walk: _Walk, kind: str, message: str, attempt: int) -> str:
    """Take one event; what is wrong with it, or ''."""
    if kind in ("submitted", "rejected"):
        before, walk.state = walk.state, "queued" if kind == "submitted" else "rejected"
        return before and f"it is {before} already"
    if kind == "claimed":
        before, expected = walk.state, walk.attempt + 1
        walk.state, walk.attempt, walk.stage, walk.begun = "running", attempt, "", []
        return f"from {before}, attempt {attempt}" if before != "queued" or attempt != expected else ""
    if kind not in {*MOVES, *REMARKS, "stage-started", "stage-finished"}:
        return "this kind is unknown to tests/faults/legal_events.py"
    if attempt != walk.attempt:
        return f"of attempt {attempt} during attempt {walk.attempt}"
    if kind in ("stage-started", "stage-finished"):
        return _stage(walk, kind, message.split()[0])
    if kind in REMARKS:
        return "" if walk.state in REMARKS[kind] else f"while {walk.state}"
    before, (allowed, walk.state) = walk.state, MOVES[kind]
    if kind == "succeeded" and walk.finished != set(STAGES):
        return f"with {sorted(walk.finished)} finished only"
    return "" if before in allowed else f"from {before}"


def _stage(walk: _Walk, kind: str, stage: str) -> str:
    if walk.state != "running":
        return f"{stage} while {walk.state}"
    if kind == "stage-finished":
        running, walk.stage = walk.stage, ""
        walk.finished.add(stage)
        return "" if running == stage else f"{stage} while {running or 'none'} ran"
    missing = [one for one in STAGES[: STAGES.index(stage)] if one not in walk.finished and one not in walk.begun]
    late = [one for one in walk.begun if STAGES.index(one) >= STAGES.index(stage)]
    running, walk.stage = walk.stage, stage
    walk.begun.append(stage)
    if running:
        return f"{stage} while {running} ran"
    return f"{stage} before {missing}" if missing else f"{stage} after {late}" if late else ""
