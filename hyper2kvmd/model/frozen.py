"""The base of every type that flows."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def with_changes(self, **changes: object) -> Self:
        """The same with other values. Raises pydantic.ValidationError for a name or a value that does not fit."""
        return self.model_validate({**dict(self), **changes})
