"""A check of the host, and running many of them within a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.errors import Failure
from hyper2kvmd.findings import Several
from hyper2kvmd.host.person import Person
from hyper2kvmd.installed import SERVICE_USER
from hyper2kvmd.model.frozen import Frozen

Level = Literal["ok", "warning", "error", "not checked"]
LIMIT_SECONDS = 15.0
"""For all checks together: a mount or a service that does not answer must not stop the report."""


class Line(Frozen):
    """One line of the report."""

    level: Level
    object: str
    fact: str
    remedy: str = ""
    """What to do about it; empty if there is nothing to do."""


class CheckedSubject(Frozen):
    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Host:
    """What the checks look at."""

    config: DaemonConfig
    me: Person

    @cached_property
    def service(self) -> Person | None:
        """The service user, None if it does not exist."""
        return Person.named(SERVICE_USER)

    @property
    def as_service(self) -> bool:
        return self.service is not None and self.me.uid == self.service.uid


@dataclass(frozen=True)
class Check:
    title: str
    """The section of its lines; several checks can share one."""
    object: str
    find: Callable[[Host], Iterator[Line]]


def ok(thing: str, fact: str) -> Line:
    return Line(level="ok", object=thing, fact=fact)


def warning(thing: str, fact: str, remedy: str) -> Line:
    return Line(level="warning", object=thing, fact=fact, remedy=remedy)


def error(thing: str, fact: str, remedy: str) -> Line:
    return Line(level="error", object=thing, fact=fact, remedy=remedy)


def not_checked(thing: str, fact: str, remedy: str = "") -> Line:
    return Line(level="not checked", object=thing, fact=fact, remedy=remedy)


def as_operator(thing: str, command: str = "h2kvmctl doctor") -> Line:
    """What this user has no rights for."""
    return not_checked(thing, "this user has no rights to look at it", f"Run `sudo {command}`")


def from_failure(thing: str, failure: Failure, level: Level = "error") -> Iterator[Line]:
    for one in failure.failures if isinstance(failure, Several) else (failure,):
        yield Line(level=level, object=thing, fact=one.message, remedy=one.hint)


@dataclass
class _Running:
    check: Check
    lines: list[Line] = field(default_factory=list)
    thread: threading.Thread | None = None
    ended: bool = False
    """False for a check that still runs, or that ended by an error of this program."""

    def start(self, host: Host) -> None:
        self.thread = threading.Thread(target=self._run, args=(host,), daemon=True)
        self.thread.start()

    def _run(self, host: Host) -> None:
        try:
            self.lines.extend(self.check.find(host))
        except PermissionError:
            self.lines.append(as_operator(self.check.object))
        except Failure as failure:
            self.lines.extend(from_failure(self.check.object, failure))
        except OSError as reason:
            text = reason.strerror or str(reason)
            self.lines.append(error(self.check.object, text, "Correct the reported error, then try again"))
        self.ended = True

    def result(self, deadline: float) -> tuple[Line, ...]:
        assert self.thread is not None  # noqa: S101 - it was started
        self.thread.join(max(0.0, deadline - time.monotonic()))
        late, ended = self.thread.is_alive(), self.ended
        lines = tuple(self.lines)
        if ended:
            return lines
        return (*lines, _silent(self.check) if late else _faulty(self.check))


def _silent(check: Check) -> Line:
    return error(
        check.object,
        "it does not answer within the time limit",
        "Look for a mount or a service that hangs: `findmnt`, `systemctl --failed`",
    )


def _faulty(check: Check) -> Line:
    return error(check.object, "the check itself failed", "Report this bug, with the lines on stderr")


def examine(checks: Sequence[Check], host: Host, limit_seconds: float = LIMIT_SECONDS) -> tuple[CheckedSubject, ...]:
    """The lines of all checks, which run side by side. One that does not end in time is reported, and left behind."""
    running = [_Running(check) for check in checks]
    for one in running:
        one.start(host)
    deadline = time.monotonic() + limit_seconds
    sections: dict[str, list[Line]] = {}
    for one in running:
        sections.setdefault(one.check.title, []).extend(one.result(deadline))
    return tuple(CheckedSubject(title=title, lines=tuple(lines)) for title, lines in sections.items())
