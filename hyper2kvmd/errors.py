"""The hierarchy of all failures that the worker, the spool, the control socket and the command line show to a person.

Every failure names the object, the fact and the remedy. Code in between catches one only to add a fact, to clean up, or
to continue with a warning.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """What can be done about a failure."""

    RETRY = "retry"
    """It may be temporary: the daemon tries again by itself."""
    OPERATOR = "operator"
    """A person has to change something on the host, then retry."""
    PERMANENT = "permanent"
    """The input itself is at fault; the same job will fail again."""


def rendered(message: str, hint: str, code: str) -> str:
    """An error as a person reads it: `object: fact. Remedy. [code]`."""
    return f"{sentences(message, hint)} [{code}]"


def sentences(message: str, hint: str) -> str:
    """The remedy of a message with several lines has a line of its own."""
    between = "\n" if "\n" in message else " "
    return f"{_ended(message)}{between}{_ended(hint)}"


def _ended(text: str) -> str:
    """As a sentence; the text of a tool may end with punctuation of its own."""
    text = text.rstrip(" :;,")
    return text if text.endswith((".", "?", "!")) else f"{text}."


class Explained(BaseException):
    """Whatever ends a command or a job early, with the text that a person reads.

    Only the top level of a program catches this class.

    `code` is a stable kebab-case identifier such as `source-missing`, a literal where the failure is created. It has
    one meaning, one kind and an entry in `catalogue/`. `message` is one line with object and fact. `hint` is the
    remedy: one or more imperative sentences that begin with a capital letter; the last one has no period.
    """

    exit_code: ClassVar[int] = 1
    kind: Kind = Kind.PERMANENT

    def __init__(self, code: str, message: str, *, hint: str, kind: Kind | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        if kind is not None:
            self.kind = kind

    def __str__(self) -> str:
        return rendered(self.message, self.hint, self.code)


class Failure(Explained, Exception):
    """Base of all errors and refusals of this program; an interruption is none."""


class MigrationFailed(Failure):
    """A stage could not do its work."""


class InvalidInput(Failure):
    """A YAML, an argument or a command that cannot be understood."""

    exit_code = 2


class NotFound(InvalidInput):
    """There is nothing with the number or name that a command gives."""

    exit_code = 1


class AlreadyActive(InvalidInput):
    """The same migration is queued, held or running: nothing was submitted."""

    exit_code = 4


class Unsafe(Failure):
    """Refused: continuing could disclose or damage data that is not ours."""

    exit_code = 3


class TryLater(Failure):
    """Nothing is wrong with the job; the host cannot run it now."""

    exit_code = 75
    kind = Kind.RETRY


class BrokenInstallation(Failure):
    """The configuration or the database cannot be used; nothing is recreated without the administrator."""

    exit_code = 78
    kind = Kind.OPERATOR


class Interrupted(Explained):
    """The operator, systemd or Ctrl-C stopped the job.

    A signal handler raises it at any line. Like KeyboardInterrupt it is no Exception, so that no code in between can
    continue as if only its own work had failed.
    """

    exit_code = 130
    kind = Kind.RETRY
