"""Jobs of a small daemon while they run."""

from __future__ import annotations

import psutil

from tests.support.house import House, events_adapter


def workers(house: House) -> list[psutil.Process]:
    assert house.process is not None
    return [
        child for child in psutil.Process(house.process.pid).children() if "small_worker" in " ".join(child.cmdline())
    ]


def started(house: House, number: int) -> list[str]:
    """The stages that were started, in all attempts."""
    events = events_adapter.validate_json(house.ask("GET", f"/v1/jobs/{number}/events")[1])
    return [event.message for event in events if event.kind == "stage-started"]


def waiting(house: House, name: str, *words: str) -> str:
    """A migration that waits in the midst of convert until `house.root/go` is there."""
    return house.migration(name, "plan", "start convert", *words, f"wait {house.root}/go", "convert", "publish")
