"""Concerns: facts about a source machine or its target that do not prevent its migration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hyper2kvmd.errors import rendered
from hyper2kvmd.model.frozen import Frozen

KEPT = 200
"""Concerns of one plan on record."""
MORE = "Resolve the first ones, then run `h2kvmctl plan` again"
LONGEST = 1000
"""Characters of one text on record."""
ConcernLevel = Literal["warning", "information"]


class Concern(Frozen):
    """A fact that a person should know before the migration, or after it. A critical one is a failure instead."""

    code: str
    """Stable and in kebab case, as `tpm-state-lost`, with an entry in `catalogue/`."""
    message: str
    """Object and fact, without a final period."""
    hint: str = ""
    """What to do: imperative sentences, the last one without a period. Empty only in records of earlier versions."""
    level: ConcernLevel = "warning"

    def __str__(self) -> str:
        """For logs and reports."""
        return rendered(self.message, self.hint, self.code) if self.hint else f"{self.message} [{self.code}]"


def first_concerns(concerns: Sequence[Concern]) -> tuple[Concern, ...]:
    """Concerns cut to the limits of record and report."""
    kept = tuple(
        one if len(one.message) <= LONGEST else one.with_changes(message=f"{one.message[:LONGEST]}... (shortened)")
        for one in concerns[:KEPT]
    )
    more = len(concerns) - KEPT
    return (*kept, Concern(code="more-concerns", message=f"and {more} more concerns", hint=MORE)) if more > 0 else kept
