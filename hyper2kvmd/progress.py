"""Frozen events that a worker sends while it works, and the context through which stages send them.

Under the daemon each event is one JSON line on the worker's stdout; in a one-shot run it moves a progress bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationInfo, field_validator

from hyper2kvmd.errors import Explained
from hyper2kvmd.findings import Several
from hyper2kvmd.model.concerns import Concern, ConcernLevel
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Problem, Stage
from hyper2kvmd.model.orders import FileSystem, SpaceNeeded
from hyper2kvmd.model.results import PRODUCTS, Finished, Product

SHORTENED = "... (shortened)"
PROGRESS_PERIOD = 0.2
"""Seconds between two progress events of a step: at most five a second."""

MAX_LINE = 8000
"""Characters of a logged command."""
MAX_TEXT = 4000
"""Characters of a problem's message or hint; a text with two paths of maximum length is shortened."""
MAX_WARNING = 1000
"""Characters."""
MAX_WARNINGS = 50
"""Warnings of one attempt on record and in the log; the report has more of them."""
MAX_TRACEBACK = 8000
"""Characters. The last ones are kept: they show where the error happened."""


class StageStarted(Frozen):
    event: Literal["stage-started"] = "stage-started"
    stage: Stage


class StageFinished(Frozen):
    event: Literal["stage-finished"] = "stage-finished"
    stage: Stage
    seconds: float
    product: Product
    """Of the type that this stage produces."""

    @field_validator("product", mode="before")
    @classmethod
    def _of_its_stage(cls, value: object, info: ValidationInfo) -> object:
        return PRODUCTS[info.data["stage"]].model_validate(value) if "stage" in info.data else value


class StepStarted(Frozen):
    event: Literal["step-started"] = "step-started"
    title: str
    total: int | None = None
    """Bytes; None when the step has no measure."""


class Progress(Frozen):
    event: Literal["progress"] = "progress"
    title: str
    done: int
    """Bytes of `total` that were read or processed."""
    total: int
    written: int = 0
    """Bytes."""
    resumed: int = 0
    """Bytes of `done` that an earlier attempt has done."""


class Warned(Frozen):
    event: Literal["warned"] = "warned"
    message: str
    level: ConcernLevel = "warning"


class MachineDecided(Frozen):
    """The hardware of the new machine is known."""

    event: Literal["machine-decided"] = "machine-decided"
    lines: tuple[str, ...]
    """For the log: the machine, then each disk and network card."""


class CommandStarted(Frozen):
    """A program was started: for the log, at debug level."""

    event: Literal["command-started"] = "command-started"
    line: str = Field(max_length=MAX_LINE)
    """A shell command line."""


HelperOutcome = Literal["ok", "unable", "refused", "failed"]
"""`unable`: the guest's file system or this kernel prevents it. `refused`: a forbidden request."""


class HelperAnswered(Frozen):
    """One request to the root helper has ended."""

    event: Literal["helper-answered"] = "helper-answered"
    verb: str = Field(pattern="^[a-z-]{1,32}$")
    outcome: HelperOutcome


class AwaitingSpace(Frozen):
    """The worker waits for one line on stdin: `go`, or `wait` to give the job back to the queue.

    It sends this before it unpacks something, and after the plan; a later one replaces the earlier ones.
    """

    event: Literal["awaiting-space"] = "awaiting-space"
    needed_bytes: int
    """That the files of the working folder will occupy in all."""
    publish_bytes: int
    publish_file_system: FileSystem | None = None
    """Destination of the results, as the worker found it: the daemon accesses no directory that a submitter names."""


class AwaitingRecord(Frozen):
    """The worker waits for one line on stdin, `recorded`: all its events are on record. It then removes its folder."""

    event: Literal["awaiting-record"] = "awaiting-record"


class Ended(Frozen):
    """The worker's last event."""

    event: Literal["ended"] = "ended"
    outcome: Literal["succeeded", "failed", "interrupted", "deferred"]
    problems: tuple[Problem, ...] = ()
    product: Finished = Field(default_factory=Finished)
    traceback: str = Field(default="", max_length=MAX_TRACEBACK)
    """Traceback of an unexpected exception, which the daemon logs as one line."""


Event = Annotated[
    StageStarted
    | StageFinished
    | StepStarted
    | Progress
    | Warned
    | MachineDecided
    | CommandStarted
    | HelperAnswered
    | AwaitingSpace
    | AwaitingRecord
    | Ended,
    Field(discriminator="event"),
]


def read_event(line: str | bytes) -> Event:
    """An event that a worker wrote as JSON. Raises pydantic.ValidationError."""
    return _event_adapter().validate_json(line)


@cache
def _event_adapter() -> TypeAdapter[Event]:
    """Made at the first use, because it takes long and a worker only writes events."""
    return TypeAdapter(Event)


def problem(failure: Explained) -> Problem:
    message, hint = (shortened(_printable(text), MAX_TEXT) for text in (failure.message, failure.hint))
    return Problem(code=failure.code, message=message, hint=hint, kind=failure.kind.value)


def problems(failure: Explained) -> tuple[Problem, ...]:
    """Each of several failures by itself."""
    return tuple(map(problem, failure.failures)) if isinstance(failure, Several) else (problem(failure),)


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - len(SHORTENED)] + SHORTENED


def warning_text(message: str) -> str:
    """The message as `Warned` has it."""
    return shortened(_printable(message), MAX_WARNING)


def _printable(text: str) -> str:
    """Replace halves of characters, from file names that are not UTF-8 or from a guest: JSON cannot have them."""
    return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= letter <= "\udfff" else letter for letter in text)


class Step:
    """A titled piece of work; `total` in bytes, or None."""

    def __init__(self, title: str, total: int | None, emit: Callable[[Event], None]) -> None:
        self._title, self._total, self._emit = title, total, emit
        self._last = 0.0

    def advance_to(self, done: int, *, written: int = 0, resumed: int = 0) -> None:
        """Report `done` of `total` bytes; may be called at any rate."""
        if self._total is None:
            return
        now = time.monotonic()
        if now - self._last >= PROGRESS_PERIOD or done >= self._total:
            self._last = now
            done = min(done, self._total)
            self._emit(
                Progress(title=self._title, done=done, total=self._total, written=written, resumed=min(done, resumed))
            )


class Context:
    """Sends the events of the stages.

    `admit` returns when the space is reserved, `await_record` when all events are on record. Both may raise `TryLater`.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        admit: Callable[[SpaceNeeded], None],
        await_record: Callable[[], None] = lambda: None,
    ) -> None:
        self.emit = emit
        self.admit = admit
        self.await_record = await_record
        self.seconds: dict[Stage, float] = {}
        self._warned: set[tuple[str, ConcernLevel]] = set()

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        """A step with nothing to measure (`total` 0: an empty disk) has no progress: it would stand at 100 %."""
        total = total or None
        self.emit(StepStarted(title=title, total=total))
        yield Step(title, total, self.emit)

    def helper_answered(self, verb: str, outcome: HelperOutcome) -> None:
        self.emit(HelperAnswered(verb=verb, outcome=outcome))

    def machine_decided(self, lines: Iterable[str]) -> None:
        self.emit(MachineDecided(lines=tuple(shortened(_printable(line), MAX_WARNING) for line in lines)))

    def note(self, concern: Concern) -> None:
        self.warn(str(concern), concern.level)

    def warn(self, message: str, level: ConcernLevel = "warning") -> None:
        """Each text once: the plan and the repair find the same facts about a guest."""
        if (message, level) in self._warned:
            return
        self._warned.add((message, level))
        if len(self._warned) <= MAX_WARNINGS:
            self.emit(Warned(message=warning_text(message), level=level))
        elif len(self._warned) == MAX_WARNINGS + 1:
            self.emit(Warned(message="there are more warnings; those of the repairs are in the report"))
