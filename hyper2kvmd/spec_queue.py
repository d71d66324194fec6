"""The keys of a migration that are for the queue: errors between the machines of one file, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.start_times import is_zone
from hyper2kvmd.yaml_source import Position, problem, shown

QUEUE_KEYS = ("batch", "after", "not_before", "window")
"""Keys that only the queue of the daemon needs."""


def window_problems(
    asked: Migration, written: object, conflict: Callable[[str, str, str], Problem]
) -> Iterator[Problem]:
    """`written` is the window as it was written, with fields that may be invalid."""
    zone = written.get("timezone") if isinstance(written, Mapping) else None
    if isinstance(zone, str) and not is_zone(zone):
        message = f"window.timezone is {shown(zone)}, which is no time zone of this host"
        hint = "Write a name as `timedatectl list-timezones` shows it, such as Europe/Berlin"
        yield conflict("window.timezone", message, hint)
    if asked.window is not None and asked.window.from_ == asked.window.to:
        message = f"the window opens and closes at {asked.window.to}"
        yield conflict("window", message, "Correct from or to. Without both, it is open all day")


def machine_problems(machines: Sequence[tuple[Migration, Position]]) -> Iterator[Problem]:
    """Errors of the machines of one file, each given with its place."""
    batches = {asked.batch: place for asked, place in machines}
    if len(batches) > 1:
        names = ", ".join(shown(name) if name else "none" for name in batches)
        message = f"the machines of the file name several batches: {names}"
        hint = "Write one `batch:` beside the list of machines, or split the file"
        yield problem("value-conflict", message, hint, place=list(batches.values())[1], key="batch")
    try:
        TopologicalSorter(_needs([asked for asked, _ in machines])).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][::-1]
        steps = ", ".join(f"{one} waits for {other}" for one, other in pairwise(circle))
        places = {asked.vm_name: place for asked, place in machines}
        hint = "Remove one of these names from `after`"
        message = f"no machine can be the first one: {steps}"
        yield problem("value-conflict", message, hint, place=places[circle[0]], key="after")


def in_start_order(machines: Sequence[Migration]) -> tuple[int, ...]:
    """The positions of the machines of one file, each after those that it names in `after`, else in their order."""
    positions = {asked.vm_name: number for number, asked in enumerate(machines)}
    needs, order = _needs(machines), dict[str, None]()

    def enter(name: str) -> None:
        if name not in order:
            for other in needs[name]:
                enter(other)
            order[name] = None

    for asked in machines:
        enter(asked.vm_name)
    return tuple(positions[name] for name in order)


def without_queue(asked: Migration, among: Sequence[Migration]) -> Concern | None:
    """What to note about a migration among others that runs without a queue."""
    names = {other.vm_name for other in among}
    keys = [key for key in QUEUE_KEYS if key in asked.model_fields_set and getattr(asked, key) is not None]
    if set(asked.after) <= names and "after" in keys:
        keys.remove("after")
    if not keys:
        return None
    return Concern(
        code="key-without-effect",
        message=f"{', '.join(keys)} {'have' if len(keys) > 1 else 'has'} no effect here: a one-shot run has no queue",
        hint="Submit the file to the daemon: `h2kvmctl submit FILE`",
        level="information",
    )


def _needs(machines: Sequence[Migration]) -> Mapping[str, Sequence[str]]:
    """For each machine, those of the same file that it waits for."""
    names = {asked.vm_name for asked in machines}
    return {asked.vm_name: [name for name in asked.after if name in names] for asked in machines}
