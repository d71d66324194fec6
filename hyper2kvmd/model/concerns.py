"""Concerns: facts about a source machine or its target that do not prevent its migration."""

from __future__ import annotations

from typing import Literal

from hyper2kvmd.model.frozen import Frozen

ConcernLevel = Literal["warning", "information"]


class Concern(Frozen):
    """A fact that a person should know before the migration, or after it. A critical one is a failure instead."""

    code: str
    """Stable and in kebab case, as `tpm-not-migrated`, with an entry in `catalogue/`."""
    message: str
    """Object and fact, without a final period."""
    hint: str = ""
    """What to do: imperative sentences, the last one without a period; empty if there is nothing to do."""
    level: ConcernLevel = "warning"

    def __str__(self) -> str:
        """For logs and reports."""
        return f"{self.message}. {self.hint}" if self.hint else self.message
