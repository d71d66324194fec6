"""Collects the failures of independent checks, to report them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hyper2kvmd.errors import BrokenInstallation, Failure, Kind, MigrationFailed


class Several(MigrationFailed):
    """Several failures, in the order in which they were found. People and logs get each of them by itself."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__(
            "several-problems",
            f"{len(failures)} problems prevent this migration: {'; '.join(failure.message for failure in failures)}",
            hint="Correct each of them, then retry",
            kind=Kind.OPERATOR,
        )
        self.failures = tuple(failures)


class Findings:
    """The failures of some checks; the same failure counts once."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], Failure] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the failure that ends the block, if other checks make sense after it.

        A refusal as unsafe, an interruption and a lack of space pass: they end the work at once.
        """
        try:
            yield
        except Several as several:
            for failure in several.failures:
                self._note(failure)
        except (MigrationFailed, BrokenInstallation) as failure:
            self._note(failure)

    def require_none(self) -> None:
        """Raise the noted failure, or Several if there are more."""
        failures = tuple(self._failures.values())
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise Several(failures)

    def _note(self, failure: Failure) -> None:
        self._failures.setdefault((failure.code, failure.message), failure)
